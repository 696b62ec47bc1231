"""A SavedModel's signature without the writes of random generators' states, so that it can freeze.

What is drawn then is the same each time; augmentation.py takes it out.
"""

from collections.abc import Iterator
from typing import Any

from kedge_convert.toolkit import require

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
