"""TensorFlow's functions as Keras 2 wrote them into a model's graph, as layers of Keras 3.

`preprocess_input(x)`, `x / 255.` or `tf.nn.relu6(x)` inside a functional model became a layer
TFOpLambda, and `x[..., ::-1]` a SlicingOpLambda, whose call holds the arguments. Keras 3 has
neither.
"""

from collections.abc import Callable
from typing import Any

from kedge_convert.sources.registered import registered
from kedge_convert.toolkit import require

Layer = dict[str, Any]
Numbers = Any  # a number or a list of them, one a channel

# A function of one tensor -> the layer that does it, and its configuration.
UNARY: dict[str, tuple[str, dict[str, Any]]] = {
    "math.sigmoid": ("Activation", {"activation": "sigmoid"}),
    "math.tanh": ("Activation", {"activation": "tanh"}),
    "nn.relu": ("ReLU", {}),
    "nn.relu6": ("ReLU", {"max_value": 6.0}),
    "nn.sigmoid": ("Activation", {"activation": "sigmoid"}),
    "nn.silu": ("Activation", {"activation": "silu"}),
    "nn.softmax": ("Softmax", {}),
    "nn.swish": ("Activation", {"activation": "silu"}),
}
# A function of two operands, tensors both -> the layer that merges them.
MERGED = {"add": "Add", "multiply": "Multiply", "subtract": "Subtract"}
# The same of a tensor and a constant c -> (scale, offset) of Rescaling, x * scale + offset.
RESCALED: dict[str, Callable[[Numbers], tuple[Numbers, Numbers]]] = {
    "add": lambda c: (1.0, c),
    "bias_add": lambda c: (1.0, c),
    "multiply": lambda c: (c, 0.0),
    "subtract": lambda c: (1.0, _each(lambda value: -value, c)),
    "truediv": lambda c: (_each(lambda value: 1 / value, c), 0.0),
}
COMMUTATIVE = ("add", "multiply")
OPERAND = {"bias_add": "bias"}  # what the second operand is called; `y` where nothing is said
CONSTANT = "_CONSTANT_VALUE"  # as the tensor's name, where the first operand is none
REVERSED = [{"class_name": "__ellipsis__"}, {"start": None, "stop": None, "step": -1}]


def function(layer: Layer) -> Layer:
    """Return a TFOpLambda as a layer of Keras 3. Raises ValueError for one that has no equal."""
    name = layer["config"]["function"]
    first, *_, arguments = layer["inbound_nodes"][0]
    if name in UNARY:
        kind, config = UNARY[name]
        return _as(layer, kind, config, [layer["inbound_nodes"][0][:3]])
    short = name.rpartition(".")[2]
    second = arguments.get(OPERAND.get(short, "y"))
    if first == CONSTANT and short in COMMUTATIVE:
        return _rescaling(layer, short, layer["inbound_nodes"][0][2], second)
    if first == CONSTANT or second is None:
        raise ValueError(f"the function {name} in the graph has no layer in Keras 3")
    if not _is_tensor(second):
        return _rescaling(layer, short, second, layer["inbound_nodes"][0][:3])
    if short not in MERGED:
        raise ValueError(f"the function {name} of two tensors has no layer in Keras 3")
    return _as(layer, MERGED[short], {}, [layer["inbound_nodes"][0][:3], second])


def slicing(layer: Layer) -> Layer:
    """Return a SlicingOpLambda that reverses the channels. Raises ValueError for any other."""
    first = layer["inbound_nodes"][0]
    if first[3].get("slice_spec") != REVERSED:
        raise ValueError("a slice of a tensor in the graph has no layer in Keras 3")
    return _as(layer, registered(_reversing()), {}, [first[:3]])


def _rescaling(layer: Layer, short: str, constant: Numbers, tensor: Any) -> Layer:
    if short not in RESCALED:
        raise ValueError(f"the function {short} of a constant in the graph has no layer in Keras 3")
    scale, offset = RESCALED[short](constant)
    return _as(layer, "Rescaling", {"scale": scale, "offset": offset}, [tensor])


def _as(layer: Layer, kind: str, config: dict[str, Any], tensors: list[Any]) -> Layer:
    """Return a layer of another class in the same place, called on `tensors`."""
    nodes = [[[*tensor, {}] for tensor in tensors]]
    named = {"name": layer["config"]["name"], **config}
    return {**layer, "class_name": kind, "config": named, "inbound_nodes": nodes}


def _is_tensor(value: Any) -> bool:
    """Whether an argument refers to a tensor: [layer's name, node, tensor]."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


def _each(change: Callable[[float], float], value: Numbers) -> Numbers:
    return [change(each) for each in value] if isinstance(value, list) else change(value)


def _reversing() -> type:
    class Reversed(require("keras").layers.Layer):  # type: ignore[misc]
        """Turns the order of the channels: RGB to BGR and back."""

        def call(self, value: Any) -> Any:
            return value[..., ::-1]

    return Reversed
