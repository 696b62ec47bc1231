"""A frozen graph as the Keras model that everything downstream meets, whatever file it is from.

What no device can run is refused here, and what belongs to training is taken out.
"""

from dataclasses import replace
from typing import Any

from kedge_convert.load import fake_quant, graph_layer
from kedge_convert.load.graph_augmentation import Inseparable, without_random
from kedge_runtime.errors import UsageError, counted

# Beginnings of operations that keep state or look tables up.
FOREIGN = ("HashTable", "LookupTable", "ReadVariable", "VarHandle")
DECODING = "Decode"  # DecodeJpeg, DecodeImage, DecodeRaw ...: encoded pictures in
LOOPS = frozenset({"Enter", "StatelessWhile", "While"})
HALF = 19  # DT_HALF of TensorFlow's types.proto

Notes = tuple[str, ...]
Shape = tuple[int | None, ...]
_DRAWING = "outside a layer of augmentation or noise: export it as model(x, training=False)"
_SIZED = (
    "in a RandomCrop, without which the layers behind it get another size than they take: export "
    "it with CenterCrop in its place"
)
UNKNOWN: Shape = (None, None, None, 3)  # where a graph doesn't say what it takes


def graph_model(
    graph: graph_layer.FrozenGraph, shape: Shape, dtype: str, name: str
) -> tuple[Any, Notes]:
    """Return the Keras model of a graph, and what is to be said of it.

    `shape`, `dtype`: of the graph's picture, [n, h, w, c], `float32` or `uint8`; the model takes
    float32. `name` is for messages. Raises UsageError for a graph that devices can't run.
    """
    graph, notes = _without_random(graph, name)
    _refuse(graph, name)
    graph = _from_floats(graph, dtype, name)
    plain = fake_quant.plain(graph)
    trained = graph if plain.activations else None
    if plain.kernels or trained:
        notes = (*notes, str(plain))
    return graph_layer.as_keras(plain.graph, shape, trained), notes


def _without_random(
    graph: graph_layer.FrozenGraph, name: str
) -> tuple[graph_layer.FrozenGraph, Notes]:
    try:
        graph, layers = without_random(graph)
    except Inseparable as error:
        reason = _SIZED if error.crops else _DRAWING
        drawn = f"{error.node.op} {error.node.name}"
        raise UsageError(f"{name}: its graph draws random numbers ({drawn}) {reason}") from error
    if not layers:
        return graph, ()
    word = "layer" if len(layers) == 1 else "layers"
    return graph, (f"random {word} that the export left on, taken out: {', '.join(layers)}",)


def _refuse(graph: graph_layer.FrozenGraph, name: str) -> None:
    """Raise UsageError for operations that no device runs."""
    nodes = graph.definition.node
    # Not attr["T"] alone: asking a message's map for a key puts it in.
    halves = [node.name for node in nodes if "T" in node.attr and node.attr["T"].type == HALF]
    if halves:
        raise UsageError(
            f"{name}: its graph computes in float16 ({counted(len(halves), 'operation')}, "
            f"{halves[0]} first): give the .keras file, or export it in float32"
        )
    if decoding := [node.op for node in nodes if node.op.startswith(DECODING)]:
        raise UsageError(
            f"{name}: its graph decodes files of pictures itself ({decoding[0]}): save it with a "
            "signature that takes pixels, tf.TensorSpec((None, height, width, 3), tf.float32)"
        )
    if foreign := sorted({node.op for node in nodes if node.op.startswith(FOREIGN)}):
        raise UsageError(
            f"{name}: its graph needs {', '.join(foreign)}, which no device has: "
            "save it from pixels to numbers"
        )
    if loops := [node.name for node in nodes if node.op in LOOPS]:
        raise UsageError(
            f"{name}: its graph has a loop ({loops[0]}), as recurrent layers have: give the .keras "
            "file, whose loops kedge unrolls, or export it with unroll=True in these layers"
        )
    if training := [node.name for node in nodes if _by_batch(node)]:
        raise UsageError(
            f"{name}: its graph normalises by each batch's own mean ({training[0]}), as in "
            "training: export it as model(x, training=False)"
        )


def _by_batch(node: Any) -> bool:
    return bool(node.op.startswith("FusedBatchNorm") and node.attr["is_training"].b)


def _from_floats(graph: graph_layer.FrozenGraph, dtype: str, name: str) -> graph_layer.FrozenGraph:
    """Return the graph with a float32 input: one of bytes begins where these are cast."""
    if dtype == "float32":
        return graph
    readers = graph.readers(graph_layer.node_name(graph.picture))
    while [each.op for each in readers] == ["Identity"]:
        readers = graph.readers(readers[0].name)
    if dtype == "uint8" and [each.op for each in readers] == ["Cast"]:
        return replace(graph, picture=f"{readers[0].name}:0")
    raise UsageError(f"{name}: its picture is {dtype}; kedge takes float32, or uint8 cast to it")
