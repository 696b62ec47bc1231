"""Turn a frozen graph into the Keras model that everything downstream meets.

It refuses what no device can run, and takes out what belongs to training.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from kedge_convert.load import fake_quant, graph_layer
from kedge_convert.load.graph_augmentation import Inseparable, without_random
from kedge_convert.load.graph_layer import FrozenGraph
from kedge_runtime.errors import UsageError, counted

# Prefixes of operations that keep state or look tables up.
FOREIGN = ("HashTable", "LookupTable", "ReadVariable", "VarHandle")
DECODING = "Decode"  # DecodeJpeg, DecodeImage, DecodeRaw ...: encoded images in
LOOPS = frozenset({"Enter", "StatelessWhile", "While"})
HALF = 19  # DT_HALF of TensorFlow's types.proto

Shape = tuple[int | None, ...]
_DRAWING = "outside a layer of augmentation or noise: export it as model(x, training=False)"
_SIZED = (
    "in a RandomCrop, without which the layers behind it get another size than they take: export "
    "it with CenterCrop in its place"
)
UNKNOWN: Shape = (None, None, None, 3)  # where a graph doesn't state its input


@dataclass(frozen=True)
class GraphModel:
    """A Keras model around a graph, and `notes` for the user on what was taken out."""

    model: Any
    notes: tuple[str, ...] = ()


def graph_model(graph: FrozenGraph, shape: Shape, dtype: str) -> GraphModel:
    """Return the Keras model of a graph; its input is float32.

    `shape`, `dtype`: of the graph's input, [n, h, w, c], `float32` or `uint8`. Raises UsageError
    for a graph that devices can't run.
    """
    graph, notes = _without_random(graph)
    _refuse(graph)
    graph = _from_floats(graph, dtype)
    plain = fake_quant.plain(graph)
    trained = graph if plain.activations else None
    if plain.kernels or trained:
        notes = (*notes, str(plain))
    return GraphModel(graph_layer.as_keras(plain.graph, shape, trained), notes)


def _without_random(graph: FrozenGraph) -> tuple[FrozenGraph, tuple[str, ...]]:
    try:
        graph, layers = without_random(graph)
    except Inseparable as error:
        reason = _SIZED if error.crops else _DRAWING
        drawn = f"{error.node.op} {error.node.name}"
        raise UsageError(f"its graph draws random numbers ({drawn}) {reason}") from error
    if not layers:
        return graph, ()
    word = "layer" if len(layers) == 1 else "layers"
    return graph, (f"random {word} that the export left on, taken out: {', '.join(layers)}",)


def _refuse(graph: FrozenGraph) -> None:
    """Raise UsageError for operations that no device runs."""
    for matches, reason in _REFUSALS:
        if nodes := [node for node in graph.definition.node if matches(node)]:
            raise UsageError(reason(nodes))


def _is_half(node: Any) -> bool:
    # Not attr["T"] alone: reading a missing key of a message's map adds it.
    return bool("T" in node.attr and node.attr["T"].type == HALF)


def _by_batch(node: Any) -> bool:
    return bool(node.op.startswith("FusedBatchNorm") and node.attr["is_training"].b)


# Which nodes are refused -> the reason, of all such nodes.
_REFUSALS: tuple[tuple[Callable[[Any], bool], Callable[[list[Any]], str]], ...] = (
    (
        _is_half,
        lambda nodes: (
            f"its graph computes in float16 ({counted(len(nodes), 'operation')}, {nodes[0].name} "
            "first): give the .keras file, or export it in float32"
        ),
    ),
    (
        lambda node: bool(node.op.startswith(DECODING)),
        lambda nodes: (
            f"its graph decodes image files itself ({nodes[0].op}): save it with a signature that "
            "takes pixels, tf.TensorSpec((None, height, width, 3), tf.float32)"
        ),
    ),
    (
        lambda node: bool(node.op.startswith(FOREIGN)),
        lambda nodes: (
            f"its graph needs {', '.join(sorted({node.op for node in nodes}))}, which no device "
            "has: save it from pixels to numbers"
        ),
    ),
    (
        lambda node: node.op in LOOPS,
        lambda nodes: (
            f"its graph has a loop ({nodes[0].name}), as recurrent layers have: give the .keras "
            "file, whose loops kedge unrolls, or export it with unroll=True in these layers"
        ),
    ),
    (
        _by_batch,
        lambda nodes: (
            f"its graph normalises by each batch's own mean ({nodes[0].name}), as in training: "
            "export it as model(x, training=False)"
        ),
    ),
)


def _from_floats(graph: FrozenGraph, dtype: str) -> FrozenGraph:
    """Return the graph with a float32 input: one of bytes starts where these are cast."""
    if dtype == "float32":
        return graph
    readers = graph.readers(graph_layer.node_name(graph.input))
    while [each.op for each in readers] == ["Identity"]:
        readers = graph.readers(readers[0].name)
    if dtype == "uint8" and [each.op for each in readers] == ["Cast"]:
        return replace(graph, input=f"{readers[0].name}:0")
    raise UsageError(f"its input is {dtype}; kedge takes float32, or uint8 cast to it")
