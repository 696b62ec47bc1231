"""Load SavedModel folders, as `model.export()` and TF-Hub give them.

Writes of random generators' states are taken out, so that the signature can be frozen.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kedge_convert.load.graph_layer import CONSTANTS, FrozenGraph, node_name
from kedge_convert.load.graph_model import UNKNOWN, graph_model
from kedge_convert.load.graph_safety import GRAPH, VARIABLES, checked
from kedge_convert.load.outputs import choose
from kedge_convert.load.request import LoadedModel, SourceFacts, SourceRequest
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError, one_line
from kedge_runtime.image.pipelines import NORMALISATIONS
from kedge_runtime.output import quiet

# Changed functions need new names, as TensorFlow keeps all in one list.
_SUFFIX = "_still"


def writers(signature: Any) -> list[Any]:
    """Return the nodes of a signature that write variables."""
    return [node for node in _nodes(signature.graph.as_graph_def()) if _writes(node)]


def only_draws(signature: Any) -> bool:
    """Whether a signature writes random generators' states, which are integers, and no more."""
    tf = require("tensorflow")
    dtypes = [tf.as_dtype(node.attr["dtype"].type) for node in writers(signature) if _sets(node)]
    return all(dtype.is_integer for dtype in dtypes)


def without_writes(signature: Any) -> Any:
    """Return a signature's function without writes, with the same inputs and outputs."""
    tf = require("tensorflow")
    definition = _strip_writes(signature.graph.as_graph_def())
    tensors = [each for each in signature.inputs if each.dtype != tf.resource]
    (image,) = [tensor for tensor in tensors if tensor.name not in _captured(signature)]
    outputs = [each.name for each in signature.outputs]

    def body(value: Any) -> Any:
        graph = tf.compat.v1.get_default_graph()
        captured = {inner.name: graph.capture(outer) for outer, inner in signature.graph.captures}
        inputs = {image.name: value, **captured}
        return tf.graph_util.import_graph_def(definition, inputs, outputs, name="")

    function = tf.compat.v1.wrap_function(body, [tf.TensorSpec(image.shape, image.dtype)])
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


def _strip_writes(definition: Any) -> Any:
    """Return a graph, changed in place, whose functions have new names and write nothing."""
    names = {function.signature.name for function in definition.library.function}
    # Within functions a tensor's name has its node and its argument.
    reads = [node.name for node in _nodes(definition) if node.op == "RngReadAndSkip"]
    drawn = {f"{name}:value:0": f"{name}:output:0" for name in reads}
    for node in _nodes(definition):
        if node.op == "RngReadAndSkip":
            _draw_once(node)
        for i, each in enumerate(node.input):
            node.input[i] = drawn.get(each, each)
        _rename_calls(node, names)
    for function in definition.library.function:
        function.signature.name += _SUFFIX
        dropped = _drop_writes(function.node_def)
        for key in [key for key, node in function.control_ret.items() if node in dropped]:
            del function.control_ret[key]
    del definition.library.gradient[:]
    return definition


def _drop_writes(nodes: Any) -> set[str]:
    """Take the writing nodes out of a list; return their names."""
    dropped = {node.name for node in nodes if _sets(node)}
    for i in reversed(range(len(nodes))):
        if nodes[i].name in dropped:
            del nodes[i]
    for node in nodes:
        rest = [each for each in node.input if each.removeprefix("^") not in dropped]
        del node.input[:]
        node.input.extend(rest)
    return dropped


def _draw_once(node: Any) -> None:
    """Replace the reading of a generator's state by a constant of its algorithm's three numbers."""
    tf = require("tensorflow")
    node.op = "Const"
    del node.input[:]
    node.attr.clear()
    node.attr["dtype"].type = tf.int64.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([0, 0, 0], tf.int64))


def _rename_calls(node: Any, names: set[str]) -> None:
    """Make a node call the functions of `names` by their new names."""
    for value in node.attr.values():
        for function in [value.func] if value.HasField("func") else value.list.func:
            function.name += _SUFFIX if function.name in names else ""
    node.op += _SUFFIX if node.op in names else ""


# In this order; a single signature or output may have any name.
SIGNATURES = ("serving_default", "serve", "default", "image_classification")
OUTPUTS = ("logits", "default", "output_0")
# TensorFlow's own line recommends an option of its loader.
_NO_VARIABLES = "its folder variables/ with the weights is missing: copy it all"


def holds(path: Path) -> bool:
    """Whether a path is a SavedModel's folder, or its saved_model.pb."""
    return (root(path) / GRAPH).is_file()


def load(request: SourceRequest) -> LoadedModel:
    """Load a SavedModel. Raises UsageError for one that isn't from one image to numbers."""
    path = root(Path(request.model))
    try:
        with quiet(), checked(path) as folder:
            loaded = require("tensorflow").saved_model.load(str(folder))
            signature = _signature(loaded.signatures, request.signature)
            names = tuple(sorted(signature.structured_outputs))
            graph = _frozen(signature, choose("output", names, request.output, OUTPUTS))
            (image,) = signature.structured_input_signature[1].values()
            shape = tuple(image.shape) if image.shape.rank else UNKNOWN
            around = graph_model(graph, shape, image.dtype.name)
    except UsageError:
        raise
    except Exception as error:
        reason = one_line(error, 300) if (path / VARIABLES).is_dir() else _NO_VARIABLES
        raise UsageError(f"TensorFlow can't load it: {reason}") from error
    raw = NORMALISATIONS["raw"] if image.dtype.name == "uint8" else None
    facts = SourceFacts(normalisation=raw)
    return LoadedModel(path.resolve().name, around.model, facts, around.notes)


def root(path: Path) -> Path:
    """Return the folder of a SavedModel, which may be named by its saved_model.pb."""
    return path.parent if path.name == GRAPH and path.is_file() else path


def _signature(signatures: Any, requested: str | None) -> Any:
    if not signatures:
        raise UsageError(
            "the SavedModel has no signature: save it with model.export('folder'), or "
            "tf.saved_model.save(module, 'folder', signatures=module.function)"
        )
    names = tuple(sorted(signatures))
    return signatures[names[choose("signature", names, requested, SIGNATURES)]]


def _frozen(signature: Any, index: int) -> FrozenGraph:
    """Return the signature's graph to the output of `index`, with constants for variables."""
    inputs = [each.name for each in signature.inputs if each.name not in _captured(signature)]
    if len(inputs) != 1:
        names = ", ".join(sorted(map(node_name, inputs)))
        raise UsageError(f"no classifier: its signature takes {names}, not one image")
    if written := sorted({node.name for node in writers(signature)}):
        if not only_draws(signature):
            more = f" and {len(written) - 1} more" if len(written) > 1 else ""
            raise UsageError(
                f"its graph writes variables with every image ({written[0]}{more}), as training "
                "does: give the .keras file, or export it as model(x, training=False) "
                "(docs/sources.md)"
            )
        signature = without_writes(signature)
    flat = require(CONSTANTS).convert_variables_to_constants_v2(signature)
    return FrozenGraph(flat.graph.as_graph_def(), flat.inputs[0].name, flat.outputs[index].name)
