"""Load frozen graphs from .pb files: GraphDefs whose variables are constants, of TensorFlow 1.

They name neither input nor output: these are the one placeholder and the one node that nobody
reads, or the output that the user names.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from kedge_convert.load.graph_layer import FrozenGraph, node_name, tensor_name
from kedge_convert.load.graph_model import UNKNOWN, Shape, graph_model
from kedge_convert.load.graph_safety import refuse_graph
from kedge_convert.load.outputs import choose
from kedge_convert.load.request import LoadedModel, SourceFacts, SourceRequest
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError, one_line
from kedge_runtime.image.pipelines import NORMALISATIONS
from kedge_runtime.output import quiet

# A GraphDef starts with a node (field 1, of a length), and a node with its name (field 1 again).
_FIELD = 0x0A
# Placeholders of TensorFlow 1 that switch training on, by their element types.
_SWITCHES = ("bool", "float32")


def holds(path: Path) -> bool:
    """Whether a file starts as a GraphDef does; this needs no TensorFlow."""
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
    """Load a frozen graph. Raises UsageError for one that isn't from one image to numbers."""
    path = Path(request.model)
    try:
        with quiet():
            graph = _with_defaults(_read(path, request.output).pruned())
            refuse_graph(graph.definition)
            image = _input(graph)
            dtype = _dtype(image)
            loaded = graph_model(replace(graph, input=f"{image.name}:0"), _shape(image), dtype)
    except UsageError:
        raise
    # TensorFlow raises whatever the user's file causes.
    except Exception as error:
        raise UsageError(f"TensorFlow can't load it: {one_line(error, 300)}") from error
    raw = NORMALISATIONS["raw"] if dtype == "uint8" else None
    return LoadedModel(path.stem, loaded.model, SourceFacts(normalisation=raw), loaded.notes)


def _read(path: Path, requested: str | None) -> FrozenGraph:
    """Return the graph with the requested output, its input not known yet."""
    definition = require("tensorflow").compat.v1.GraphDef.FromString(path.read_bytes())
    names = [node.name for node in definition.node]
    if requested is not None and node_name(requested) in names:
        return FrozenGraph(definition, "", tensor_name(requested))
    read = {node_name(each) for node in definition.node for each in node.input}
    idle = ("Assert", "Const", "NoOp", "Placeholder", "PlaceholderWithDefault")
    last = [node.name for node in definition.node if node.name not in read and node.op not in idle]
    if not last:
        raise UsageError("a graph without an operation that gives an output")
    return FrozenGraph(definition, "", f"{last[choose('output', last, requested)]}:0")


def _with_defaults(graph: FrozenGraph) -> FrozenGraph:
    """Return the graph whose placeholders use their defaults, where they have any."""

    def take_default(node: Any) -> None:
        if node.op == "PlaceholderWithDefault":
            node.op = "Identity"
            node.attr["T"].type = node.attr["dtype"].type
            for key in set(node.attr) - {"T"}:
                del node.attr[key]

    return graph.changed(take_default)


def _input(graph: FrozenGraph) -> Any:
    """Return the placeholder of the image; raise UsageError where there are others."""
    inputs = [node for node in graph.definition.node if node.op == "Placeholder"]
    switches = [node for node in inputs if _dtype(node) in _SWITCHES and len(_shape(node)) != 4]
    images = [node for node in inputs if node not in switches]
    if len(images) == 1 and switches:
        names = ", ".join(f"{node.name} ({_dtype(node)})" for node in switches)
        raise UsageError(
            f"its graph has a training switch without a default, {names}: make that a "
            "tf.compat.v1.placeholder_with_default, or a constant, and freeze again"
        )
    if len(inputs) != 1:
        names = ", ".join(node.name for node in inputs) or "nothing"
        raise UsageError(f"no classifier: its graph takes {names}, not one image")
    return inputs[0]


def _dtype(node: Any) -> str:
    name: str = require("tensorflow").as_dtype(node.attr["dtype"].type).name
    return name


def _shape(node: Any) -> Shape:
    """Return a placeholder's shape; -1 and 0 are open sides."""
    if "shape" not in node.attr or node.attr["shape"].shape.unknown_rank:
        return UNKNOWN
    sides = [side.size for side in node.attr["shape"].shape.dim]
    return tuple(side if side > 0 else None for side in sides)
