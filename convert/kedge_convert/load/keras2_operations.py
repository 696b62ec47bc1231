"""Replace TensorFlow's functions in a Keras 2 model by layers and operations of Keras 3.

`preprocess_input(x)`, `x / 255.` or `tf.nn.relu6(x)` inside a functional model became a layer
TFOpLambda, and `x[..., ::-1]` a SlicingOpLambda. A layer of Keras 3 is preferred to an operation:
preparation handles layers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from kedge_convert.toolkit import require

KINDS = ("SlicingOpLambda", "TFOpLambda")
Named = Callable[[str], str]  # returns an unused name


def call(layer: Any, args: Any, kwargs: Any, named: Named) -> Any:
    """Run a TFOpLambda on tensors of Keras 3. Raises ValueError for unknown functions."""
    symbol = str(layer.symbol).removeprefix("compat.v1.")
    short = symbol.rpartition(".")[2]
    arguments = {key: value for key, value in kwargs.items() if key != "name"}
    if type(layer).__name__ == "SlicingOpLambda":
        return _sliced(*args, **arguments)
    name = named(layer.name)
    if short in _ARITHMETIC:
        return _combined(short, name, *args, **arguments)
    if symbol not in _FUNCTIONS:
        raise ValueError(f"the function {symbol} has no equivalent in Keras 3")
    return _FUNCTIONS[symbol](name, *args, **arguments)


def _sliced(tensor: Any, slice_spec: Any) -> Any:
    spec = slice_spec if isinstance(slice_spec, list | tuple) else [slice_spec]
    return tensor[tuple(_part(each) for each in spec)]


def _part(part: Any) -> Any:
    """Return a slice, which is a dictionary in a configuration, or an index."""
    return slice(part["start"], part["stop"], part["step"]) if isinstance(part, dict) else part


# A function of a tensor and a constant c -> (scale, offset) of Rescaling, x * scale + offset.
_RESCALED: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "add": lambda c: (1.0, c),
    "bias_add": lambda c: (1.0, c),
    "divide": lambda c: (1 / c, 0.0),
    "multiply": lambda c: (c, 0.0),
    "subtract": lambda c: (1.0, -c),
    "truediv": lambda c: (1 / c, 0.0),
}
# The same with the constant first.
_REFLECTED = {
    "add": _RESCALED["add"],
    "multiply": _RESCALED["multiply"],
    "subtract": lambda c: (-1.0, c),
}
# The same of two tensors -> the layer that merges them.
_MERGED = {"add": "Add", "multiply": "Multiply", "subtract": "Subtract"}
_ARITHMETIC = frozenset(_RESCALED)


def _combined(short: str, name: str, *args: Any, **kwargs: Any) -> Any:
    """Return an arithmetic function of two operands, of which one may be a constant."""
    keras = require("keras")
    first, second = (*args, *(kwargs[key] for key in ("x", "value", "y", "bias") if key in kwargs))
    tensors = [isinstance(each, keras.KerasTensor) for each in (first, second)]
    if all(tensors):
        same_rank = len(first.shape) == len(second.shape)
        if short in _MERGED and same_rank:
            return getattr(keras.layers, _MERGED[short])(name=name)([first, second])
        return getattr(keras.ops, "divide" if short == "truediv" else short)(first, second)
    tensor, constant = (first, second) if tensors[0] else (second, first)
    value = np.asarray(constant, np.float64)
    table = _RESCALED if tensors[0] else _REFLECTED
    if value.ndim > 1 or short not in table:
        function = getattr(keras.ops, "divide" if short == "truediv" else short)
        pairs = zip((first, second), tensors, strict=True)
        operands = (
            each if is_tensor else np.asarray(each, np.float32) for each, is_tensor in pairs
        )
        return function(*operands)
    scale, offset = (np.asarray(each).tolist() for each in table[short](value))
    return keras.layers.Rescaling(scale, offset, name=name)(tensor)


def _layer(kind: str, *settings: Any, **more: Any) -> Callable[..., Any]:
    """Return a function that calls a layer of this kind on its one tensor."""

    def run(name: str, *args: Any, **kwargs: Any) -> Any:
        (tensor,) = (*args, *kwargs.values())
        return getattr(require("keras").layers, kind)(*settings, **more, name=name)(tensor)

    return run


def _operation(kind: str, **renamed: str) -> Callable[..., Any]:
    """Return a function that calls one of keras.ops; `renamed`: its argument for TensorFlow's."""

    def run(name: str, *args: Any, **kwargs: Any) -> Any:
        arguments = {renamed.get(key, key): value for key, value in kwargs.items()}
        return getattr(require("keras").ops, kind)(*args, **arguments)

    return run


def _cast(name: str, x: Any, dtype: Any) -> Any:
    """Return the tensor: everything is float32 here. Raises ValueError for casts to integers."""
    if not require("tensorflow").as_dtype(dtype).is_floating:
        raise ValueError(f"its numbers are cast to {dtype} inside")
    return x


def _concatenated(name: str, values: Any, axis: int) -> Any:
    return require("keras").layers.Concatenate(axis=axis, name=name)(values)


def _mean(name: str, input_tensor: Any, axis: Any = None, keepdims: bool = False) -> Any:
    keras = require("keras")
    if len(input_tensor.shape) == 4 and list(np.ravel(axis)) == [1, 2]:
        return keras.layers.GlobalAveragePooling2D(keepdims=keepdims, name=name)(input_tensor)
    return keras.ops.mean(input_tensor, axis=axis, keepdims=keepdims)


def _softmax(name: str, logits: Any, axis: int | None = None) -> Any:
    return require("keras").layers.Softmax(axis=-1 if axis is None else axis, name=name)(logits)


def _leaky_relu(name: str, features: Any, alpha: float = 0.2) -> Any:
    return require("keras").layers.LeakyReLU(negative_slope=alpha, name=name)(features)


def _resized(name: str, images: Any, size: Any, method: Any = "bilinear", **more: Any) -> Any:
    if any(more.values()):
        raise ValueError(
            f"the function image.resize with {', '.join(more)} has no equivalent in Keras 3"
        )
    height, width = (int(each) for each in size)
    resizing = require("keras").layers.Resizing
    return resizing(height, width, interpolation=str(method), name=name)(images)


_activation = partial(_layer, "Activation")
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "cast": _cast,
    "clip_by_value": _operation("clip", clip_value_min="x_min", clip_value_max="x_max"),
    "concat": _concatenated,
    "expand_dims": _operation("expand_dims", input="x"),
    "identity": _layer("Identity"),
    "image.resize": _resized,
    "math.abs": _operation("abs"),
    "math.exp": _operation("exp"),
    "math.maximum": _operation("maximum", x="x1", y="x2"),
    "math.minimum": _operation("minimum", x="x1", y="x2"),
    "math.negative": _operation("negative"),
    "math.pow": _operation("power", x="x1", y="x2"),
    "math.reduce_max": _operation("max", input_tensor="x"),
    "math.reduce_mean": _mean,
    "math.reduce_sum": _operation("sum", input_tensor="x"),
    "math.sigmoid": _activation("sigmoid"),
    "math.sqrt": _operation("sqrt"),
    "math.square": _operation("square"),
    "math.tanh": _activation("tanh"),
    "nn.elu": _activation("elu"),
    "nn.gelu": _activation("gelu"),
    "nn.leaky_relu": _leaky_relu,
    "nn.relu": _layer("ReLU"),
    "nn.relu6": _layer("ReLU", 6.0),
    "nn.selu": _activation("selu"),
    "nn.sigmoid": _activation("sigmoid"),
    "nn.silu": _activation("silu"),
    "nn.softmax": _softmax,
    "nn.softplus": _activation("softplus"),
    "nn.swish": _activation("silu"),
    "nn.tanh": _activation("tanh"),
    "reshape": _operation("reshape", tensor="x", shape="newshape"),
    "reverse": _operation("flip", tensor="x"),
    "squeeze": _operation("squeeze", input="x"),
    "stack": _operation("stack", values="x"),
    "stop_gradient": _layer("Identity"),
    "transpose": _operation("transpose", a="x", perm="axes"),
    "unstack": _operation("unstack", value="x"),
}
