"""Load SavedModel folders, as `model.export()` and TF-Hub give them.

Writes of random generators' states are taken out, so that the signature can be frozen.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kedge_convert.load import graph_layer
from kedge_convert.load.graph_model import UNKNOWN, graph_model
from kedge_convert.load.graph_safety import GRAPH, VARIABLES, checked
from kedge_convert.load.outputs import chosen
from kedge_convert.load.request import LoadedModel, SourceFacts, SourceRequest
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError, one_line
from kedge_runtime.image.pipelines import NORMALISATIONS
from kedge_runtime.output import quiet

# Functions of other contents need other names, as TensorFlow keeps them all in one list.
_SUFFIX = "_still"


def writers(signature: Any) -> list[Any]:
    """Return the nodes of a signature that write variables."""
    return [node for node in _nodes(signature.graph.as_graph_def()) if _writes(node)]


def draws(signature: Any) -> bool:
    """Whether a signature writes states of generators, which are integers, and nothing else."""
    tf = require("tensorflow")
    dtypes = [tf.as_dtype(node.attr["dtype"].type) for node in writers(signature) if _sets(node)]
    return all(dtype.is_integer for dtype in dtypes)


def still(signature: Any) -> Any:
    """Return the function of a signature, with the same inputs and outputs, that writes nothing."""
    tf = require("tensorflow")
    definition = _without_writes(signature.graph.as_graph_def())
    tensors = [each for each in signature.inputs if each.dtype != tf.resource]
    (taken,) = [tensor for tensor in tensors if tensor.name not in _captured(signature)]
    answers = [each.name for each in signature.outputs]

    def body(picture: Any) -> Any:
        graph = tf.compat.v1.get_default_graph()
        held = {inner.name: graph.capture(outer) for outer, inner in signature.graph.captures}
        inputs = {taken.name: picture, **held}
        return tf.graph_util.import_graph_def(definition, inputs, answers, name="")

    function = tf.compat.v1.wrap_function(body, [tf.TensorSpec(taken.shape, taken.dtype)])
    function.graph.variables = signature.graph.variables
    return function


def _captured(signature: Any) -> set[str]:
    return {inner.name for _, inner in signature.graph.captures}


def _nodes(definition: Any) -> Iterator[Any]:
    """Yield the nodes of a graph and of its functions."""
    yield from definition.node
    for function in definition.library.function:
        yield from function.node_def


def _sets(node: Any) -> bool:
    return bool(node.op.startswith("Assign"))


def _writes(node: Any) -> bool:
    return _sets(node) or node.op == "RngReadAndSkip"


def _without_writes(definition: Any) -> Any:
    """Return a graph, changed in place, whose functions write nothing and are called otherwise."""
    names = {function.signature.name for function in definition.library.function}
    # Within functions a tensor is called by its node and its argument.
    reads = [node.name for node in _nodes(definition) if node.op == "RngReadAndSkip"]
    drawn = {f"{name}:value:0": f"{name}:output:0" for name in reads}
    for node in _nodes(definition):
        if node.op == "RngReadAndSkip":
            _draw_once(node)
        for i, each in enumerate(node.input):
            node.input[i] = drawn.get(each, each)
        _call_otherwise(node, names)
    for function in definition.library.function:
        function.signature.name += _SUFFIX
        gone = _dropped(function.node_def)
        for key in [key for key, node in function.control_ret.items() if node in gone]:
            del function.control_ret[key]
    del definition.library.gradient[:]
    return definition


def _dropped(nodes: Any) -> set[str]:
    """Take the writing nodes out of a list; return their names."""
    gone = {node.name for node in nodes if _sets(node)}
    for i in reversed(range(len(nodes))):
        if nodes[i].name in gone:
            del nodes[i]
    for node in nodes:
        kept = [each for each in node.input if each.removeprefix("^") not in gone]
        del node.input[:]
        node.input.extend(kept)
    return gone


def _draw_once(node: Any) -> None:
    """Make the reading of a generator's state a constant; three numbers are its algorithm's."""
    tf = require("tensorflow")
    node.op = "Const"
    del node.input[:]
    node.attr.clear()
    node.attr["dtype"].type = tf.int64.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([0, 0, 0], tf.int64))


def _call_otherwise(node: Any, names: set[str]) -> None:
    """Have a node call the functions of `names` by their new names."""
    for value in node.attr.values():
        for function in [value.func] if value.HasField("func") else value.list.func:
            function.name += _SUFFIX if function.name in names else ""
    node.op += _SUFFIX if node.op in names else ""


# Tried in this order; where there is but one signature or output, its name doesn't matter.
SIGNATURES = ("serving_default", "serve", "default", "image_classification")
OUTPUTS = ("logits", "default", "output_0")
# TensorFlow's own line recommends an option of its loader.
_NO_VARIABLES = "there is no folder variables/ in it, which holds the weights: copy it all"


def holds(path: Path) -> bool:
    """Whether a path is a folder with a SavedModel in it, or the saved_model.pb of one."""
    return (root(path) / GRAPH).is_file()


def load(request: SourceRequest) -> LoadedModel:
    """Load a SavedModel. Raises UsageError for one that does anything but turn an image into
    numbers."""
    path = root(Path(request.model))
    tf = require("tensorflow")
    try:
        with quiet(), checked(path) as folder:
            loaded = tf.saved_model.load(str(folder))
            signature = _signature(path, loaded.signatures, request.signature)
            names = tuple(sorted(signature.structured_outputs))
            index = chosen(str(path), "output", names, request.output, OUTPUTS)
            graph = _frozen(path, signature, index)
            (taken,) = signature.structured_input_signature[1].values()
            shape = tuple(taken.shape) if taken.shape.rank else UNKNOWN
            model, notes = graph_model(graph, shape, taken.dtype.name, str(path))
    except UsageError:
        raise
    except Exception as error:
        reason = one_line(error, 300) if (path / VARIABLES).is_dir() else _NO_VARIABLES
        raise UsageError(f"{path}: TensorFlow can't load it: {reason}") from error
    raw = NORMALISATIONS["raw"] if taken.dtype.name == "uint8" else None
    return LoadedModel(path.resolve().name, model, SourceFacts(normalisation=raw), notes)


def root(path: Path) -> Path:
    """Return the folder of a SavedModel; its saved_model.pb means it, too."""
    return path.parent if path.name == GRAPH and path.is_file() else path


def _signature(path: Path, signatures: Any, asked: str | None) -> Any:
    if not signatures:
        raise UsageError(
            f"{path}: the SavedModel has no signature: save it with model.export('folder'), or "
            "tf.saved_model.save(module, 'folder', signatures=module.function)"
        )
    names = tuple(sorted(signatures))
    return signatures[names[chosen(str(path), "signature", names, asked, SIGNATURES)]]


def _frozen(path: Path, signature: Any, index: int) -> graph_layer.FrozenGraph:
    """Return the signature's graph from its one picture to the output of `index`,
    variables made constants."""
    captured = {inner.name for _, inner in signature.graph.captures}
    taken = [tensor.name for tensor in signature.inputs if tensor.name not in captured]
    if len(taken) != 1:
        names = ", ".join(sorted(map(graph_layer.node_name, taken)))
        raise UsageError(f"{path}: no classifier: its signature takes {names}, not one picture")
    if written := sorted({node.name for node in writers(signature)}):
        if not draws(signature):
            raise UsageError(
                f"{path}: its graph writes variables with every picture ({', '.join(written)}), as "
                "training does: export it as model(x, training=False)"
            )
        signature = still(signature)
    module = "tensorflow.python.framework.convert_to_constants"
    flat = require(module).convert_variables_to_constants_v2(signature)
    answer = flat.outputs[index]
    return graph_layer.FrozenGraph(flat.graph.as_graph_def(), flat.inputs[0].name, answer.name)
