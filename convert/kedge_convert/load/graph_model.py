"""Turn a frozen graph into the Keras model that everything downstream meets.

It refuses what no device can run, and takes out what belongs to training.
"""

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
    nodes = graph.definition.node
    # Not attr["T"] alone: reading a missing key of a message's map adds it.
    halves = [node.name for node in nodes if "T" in node.attr and node.attr["T"].type == HALF]
    if halves:
        raise UsageError(
            f"its graph computes in float16 ({counted(len(halves), 'operation')}, {halves[0]} "
            "first): give the .keras file, or export it in float32"
        )
    if decoding := [node.op for node in nodes if node.op.startswith(DECODING)]:
        raise UsageError(
            f"its graph decodes image files itself ({decoding[0]}): save it with a signature that "
            "takes pixels, tf.TensorSpec((None, height, width, 3), tf.float32)"
        )
    if foreign := sorted({node.op for node in nodes if node.op.startswith(FOREIGN)}):
        raise UsageError(
            f"its graph needs {', '.join(foreign)}, which no device has: save it from pixels to "
            "numbers"
        )
    if loops := [node.name for node in nodes if node.op in LOOPS]:
        raise UsageError(
            f"its graph has a loop ({loops[0]}), as recurrent layers have: give the .keras file, "
            "whose loops kedge unrolls, or export it with unroll=True in these layers"
        )
    if training := [node.name for node in nodes if _by_batch(node)]:
        raise UsageError(
            f"its graph normalises by each batch's own mean ({training[0]}), as in training: "
            "export it as model(x, training=False)"
        )


def _by_batch(node: Any) -> bool:
    return bool(node.op.startswith("FusedBatchNorm") and node.attr["is_training"].b)


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
