"""A frozen graph in a .pb file: a GraphDef whose variables are constants, as TensorFlow 1 shipped.

It says neither which of its nodes is the picture nor which is the answer: the one placeholder and
the one node that nobody reads are, or those that the user names.
"""

from pathlib import Path
from typing import Any

from kedge_convert.load.graph_layer import FrozenGraph, node_name
from kedge_convert.load.graph_model import UNKNOWN, Shape, graph_model
from kedge_convert.load.graph_safety import refuse_graph
from kedge_convert.load.outputs import chosen
from kedge_convert.load.request import LoadedModel, SourceFacts, SourceRequest
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError, one_line
from kedge_runtime.image.pipelines import NORMALISATIONS
from kedge_runtime.output import quiet

# A GraphDef begins with a node (field 1, of a length), and a node with its name (field 1 again).
_FIELD = 0x0A
# Placeholders of TensorFlow 1 that tell training from use, by their element types.
_SWITCHES = ("bool", "float32")


def holds(path: Path) -> bool:
    """Whether a file begins as a GraphDef does; TensorFlow needn't be imported for it."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(16)
    if not start or start[0] != _FIELD:
        return False
    # The length is written in 7 bits a byte; all but the last have the eighth bit set.
    after = next((i for i in range(1, len(start)) if start[i] < 0x80), len(start)) + 1
    return start[after : after + 1] == bytes([_FIELD])


def load(request: SourceRequest) -> LoadedModel:
    """Load a frozen graph. Raises UsageError for one that isn't from one picture to numbers."""
    path = Path(request.model)
    try:
        with quiet():
            graph = _read(path, request.output)
            refuse_graph(graph.definition, str(path))
            picture = _picture(path, graph)
            dtype = _dtype(picture)
            model, notes = graph_model(graph.taking(picture), _shape(picture), dtype, str(path))
    except UsageError:
        raise
    # What TensorFlow stumbles over here is the user's file.
    except Exception as error:
        raise UsageError(f"{path}: TensorFlow can't load it: {one_line(error, 300)}") from error
    raw = NORMALISATIONS["raw"] if dtype == "uint8" else None
    return LoadedModel(path.stem, model, SourceFacts(normalisation=raw), notes)


def _read(path: Path, asked: str | None) -> FrozenGraph:
    """Return the graph to the output that is asked for, its picture not known yet."""
    definition = require("tensorflow").compat.v1.GraphDef.FromString(path.read_bytes())
    names = [node.name for node in definition.node]
    if asked is not None and node_name(asked) in names:
        return _fed(FrozenGraph(definition, "", asked if ":" in asked else f"{asked}:0").pruned())
    read = {node_name(each) for node in definition.node for each in node.input}
    idle = ("Assert", "Const", "NoOp", "Placeholder", "PlaceholderWithDefault")
    ends = [node.name for node in definition.node if node.name not in read and node.op not in idle]
    if not ends:
        raise UsageError(f"{path}: a graph without an operation that gives an answer")
    return _fed(
        FrozenGraph(definition, "", f"{ends[chosen(str(path), 'output', ends, asked)]}:0").pruned()
    )


def _fed(graph: FrozenGraph) -> FrozenGraph:
    """Return the graph whose placeholders take their defaults, where they have any."""

    def take_default(node: Any) -> None:
        if node.op == "PlaceholderWithDefault":
            node.op = "Identity"
            node.attr["T"].type = node.attr["dtype"].type
            for key in set(node.attr) - {"T"}:
                del node.attr[key]

    return graph.changed(take_default)


def _picture(path: Path, graph: FrozenGraph) -> Any:
    """Return the placeholder of the picture; raise UsageError where there are others."""
    places = [node for node in graph.definition.node if node.op == "Placeholder"]
    switches = [node for node in places if _dtype(node) in _SWITCHES and len(_shape(node)) != 4]
    pictures = [node for node in places if node not in switches]
    if len(pictures) == 1 and switches:
        names = ", ".join(f"{node.name} ({_dtype(node)})" for node in switches)
        raise UsageError(
            f"{path}: its graph is told by {names} whether it is trained, and has no default of "
            "it: make that a tf.compat.v1.placeholder_with_default, or a constant, and freeze again"
        )
    if len(places) != 1:
        names = ", ".join(node.name for node in places) or "nothing"
        raise UsageError(f"{path}: no classifier: its graph takes {names}, not one picture")
    return places[0]


def _dtype(node: Any) -> str:
    name: str = require("tensorflow").as_dtype(node.attr["dtype"].type).name
    return name


def _shape(node: Any) -> Shape:
    """Return the shape that a placeholder states, -1 and 0 being open sides."""
    if "shape" not in node.attr or node.attr["shape"].shape.unknown_rank:
        return UNKNOWN
    sides = [side.size for side in node.attr["shape"].shape.dim]
    return tuple(side if side > 0 else None for side in sides)
