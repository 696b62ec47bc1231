"""Small float programs in TFLite, one for each operator or way of using it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from kedge_convert.export import flatbuffer, tflite_converter
from kedge_convert.export.tflite_converter import INPUT
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats

IMAGE = (1, 7, 6, 4)
DEPRECATED = 127  # the greatest number of an operator in the schema's older field


@dataclass(frozen=True)
class FloatProgram:
    """A function of TensorFlow from one input. `low`: the least number that is put in."""

    function: Callable[[Any, Any], Any]
    shape: tuple[int, ...] = IMAGE
    low: float = -4.0

    def values(self) -> Floats:
        """Return seeded numbers from `low` to 4."""
        rng = np.random.default_rng(3)
        return rng.uniform(self.low, 4, self.shape).astype(np.float32)


def _weights(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).uniform(-1, 1, shape).astype(np.float32)


def _conv(tf: Any, value: Any, size: int = 3, outputs: int = 5, **options: Any) -> Any:
    options = {"strides": 1, "padding": "SAME", **options}
    kernel = _weights(size, size, int(value.shape[-1]), outputs)
    return tf.nn.bias_add(tf.nn.conv2d(value, kernel, **options), _weights(outputs))


def _depthwise(tf: Any, value: Any, stride: int = 1, padding: str = "SAME", step: int = 1) -> Any:
    kernel = _weights(3, 3, int(value.shape[-1]), 2)
    return tf.nn.depthwise_conv2d(
        value, kernel, (1, stride, stride, 1), padding, dilations=(step, step)
    )


def _transposed(tf: Any, value: Any, size: int, stride: int, padding: str) -> Any:
    sides = {"SAME": lambda n: n * stride, "VALID": lambda n: n * stride + max(size - stride, 0)}
    height, width = (sides[padding](int(n)) for n in value.shape[1:3])
    kernel = _weights(size, size, 5, int(value.shape[-1]))
    return tf.nn.conv2d_transpose(value, kernel, (1, height, width, 5), stride, padding)


def _dense(tf: Any, value: Any, outputs: int = 5) -> Any:
    return tf.matmul(value, _weights(int(value.shape[-1]), outputs)) + _weights(outputs)


def _resize(method: str, height: int, width: int, **how: bool) -> Callable[[Any, Any], Any]:
    def function(tf: Any, value: Any) -> Any:
        operation = getattr(tf.raw_ops, method)
        return operation(images=_conv(tf, value), size=(height, width), **how)

    return function


def _gate(tf: Any, value: Any) -> Any:
    value = _conv(tf, value, 3, 8)
    pooled = tf.reshape(tf.reduce_mean(value, (1, 2)), (1, 1, 1, 8))
    return value * tf.sigmoid(_conv(tf, pooled, 1, 8))


def _attention(tf: Any, value: Any) -> Any:
    tokens = tf.reshape(_conv(tf, value), (1, 42, 5))
    scores = tf.nn.softmax(tf.matmul(tokens, tokens, transpose_b=True) * 0.1)
    return tf.matmul(scores, tokens)


def _shuffled(tf: Any, value: Any) -> Any:
    """Exchange the halves of the channels, as ShuffleNet does."""
    value = tf.reshape(_conv(tf, value, outputs=6), (1, 7, 6, 2, 3))
    return _conv(tf, tf.reshape(tf.transpose(value, (0, 1, 2, 4, 3)), (1, 7, 6, 6)))


def _layer_norm(tf: Any, value: Any) -> Any:
    value = _conv(tf, value)
    mean = tf.reduce_mean(value, -1, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(value, mean), -1, keepdims=True)
    return (value - mean) * tf.math.rsqrt(variance + 1e-3) * _weights(5)


def _chosen(tf: Any, value: Any) -> Any:
    first = value[..., :1]
    value = _conv(tf, value)
    wild = tf.logical_or(tf.greater(value, first), value >= 3.0)
    calm = tf.logical_and(value < 2.0, value <= first)
    same = tf.logical_or(tf.equal(value, 0.5), tf.not_equal(tf.floor(value), 1.0))
    kept = tf.logical_not(tf.logical_and(tf.logical_or(wild, calm), same))
    return tf.where(first > 0.0, tf.where(kept, value * 2.0, value), 3.0)


def _masked(tf: Any, value: Any) -> Any:
    """Add a constant that was made piece by piece, as Swin's attention makes its masks."""
    xla: Any = require("tensorflow.compiler.tf2xla.python.xla")
    value = _conv(tf, value)
    mask = xla.dynamic_update_slice(tf.zeros((1, 7, 6, 5)), tf.ones((1, 2, 3, 5)), (0, 1, 2, 0))
    return value + mask


def _of(name: str, **options: Any) -> Callable[[Any, Any], Any]:
    """Return a function of tf.nn or tf.math behind a convolution."""

    def function(tf: Any, value: Any) -> Any:
        space = tf.nn if hasattr(tf.nn, name) else tf.math
        return getattr(space, name)(_conv(tf, value), **options)

    return function


def _alone(name: str, **options: Any) -> Callable[[Any, Any], Any]:
    """Return a function of tf.math on the input itself."""
    return lambda tf, value: getattr(tf.math, name)(value, **options)


def _pool(kind: str, *args: Any) -> Callable[[Any, Any], Any]:
    return lambda tf, value: getattr(tf.nn, kind)(value, *args)


def _prelu(tf: Any, value: Any) -> Any:
    alpha = np.abs(_weights(1, 1, 5))
    value = _conv(tf, value)
    return tf.nn.relu(value) + -alpha * tf.nn.relu(-value)


def _hard_swish(tf: Any, value: Any) -> Any:
    value = _conv(tf, value)
    return value * tf.nn.relu6(value + 3.0) * (1 / 6)


PROGRAMS: dict[str, FloatProgram] = {
    "conv": FloatProgram(_conv),
    "conv of stride 2, odd and even": FloatProgram(lambda tf, x: _conv(tf, x, strides=2)),
    "conv valid": FloatProgram(lambda tf, x: _conv(tf, x, padding="VALID", strides=2)),
    "conv dilated": FloatProgram(lambda tf, x: _conv(tf, x, dilations=2)),
    "conv without bias": FloatProgram(
        lambda tf, x: tf.nn.conv2d(x, _weights(3, 3, 4, 5), 1, "SAME")
    ),
    "conv of groups": FloatProgram(lambda tf, x: tf.nn.conv2d(x, _weights(3, 3, 2, 6), 1, "SAME")),
    "conv behind padding": FloatProgram(
        lambda tf, x: _conv(tf, tf.pad(x, ((0, 0), (0, 1), (2, 1), (0, 0))), padding="VALID")
    ),
    "conv behind padding of both": FloatProgram(
        lambda tf, x: _conv(tf, tf.pad(_conv(tf, x), ((0, 0), (1, 1), (1, 1), (0, 0))), strides=2)
    ),
    "conv relu": FloatProgram(lambda tf, x: tf.nn.relu(_conv(tf, x))),
    "conv relu6": FloatProgram(lambda tf, x: tf.nn.relu6(_conv(tf, x))),
    "conv relu from -1 to 1": FloatProgram(
        lambda tf, x: tf.minimum(tf.maximum(_conv(tf, x), -1.0), 1.0)
    ),
    "two convs of one kernel": FloatProgram(
        lambda tf, x: tf.concat((_conv(tf, x), tf.nn.relu(_conv(tf, -x))), -1)
    ),
    "depthwise": FloatProgram(_depthwise),
    "depthwise of stride 2": FloatProgram(lambda tf, x: tf.nn.relu6(_depthwise(tf, x, 2))),
    "depthwise dilated": FloatProgram(lambda tf, x: _depthwise(tf, x, padding="VALID", step=2)),
    **{
        f"transposed conv {size} {stride} {padding}": FloatProgram(
            partial(_transposed, size=size, stride=stride, padding=padding)
        )
        for size, stride in ((3, 2), (2, 2), (4, 2), (1, 2), (2, 3), (3, 1))
        for padding in ("SAME", "VALID")
    },
    "dense": FloatProgram(lambda tf, x: _dense(tf, x), (1, 12)),
    "dense relu": FloatProgram(lambda tf, x: tf.nn.relu(_dense(tf, x)), (1, 12)),
    "dense without bias": FloatProgram(lambda tf, x: tf.matmul(x, _weights(12, 5)), (1, 12)),
    "dense on an image": FloatProgram(
        lambda tf, x: tf.nn.relu(_dense(tf, tf.reshape(_conv(tf, x), (1, 210))))
    ),
    "dense on a pooled image": FloatProgram(
        lambda tf, x: _dense(
            tf, tf.reshape(tf.reduce_mean(_conv(tf, x), (1, 2), keepdims=True), (1, 5))
        )
    ),
    "dense on every pixel": FloatProgram(
        lambda tf, x: tf.nn.relu(tf.tensordot(_conv(tf, x), _weights(5, 3), 1) + _weights(3))
    ),
    "dense on tokens": FloatProgram(
        lambda tf, x: tf.tensordot(x, _weights(6, 3), 1) + _weights(3), (1, 7, 6)
    ),
    "average pool": FloatProgram(_pool("avg_pool2d", 2, 2, "VALID")),
    "average pool same": FloatProgram(_pool("avg_pool2d", 3, 2, "SAME")),
    "max pool": FloatProgram(_pool("max_pool2d", 3, 2, "VALID")),
    "max pool same": FloatProgram(_pool("max_pool2d", 2, 2, "SAME")),
    "max pool of negatives behind padding": FloatProgram(
        lambda tf, x: tf.nn.max_pool2d(
            tf.pad(-tf.nn.relu(_conv(tf, x)) - 1.0, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 2, "VALID"
        )
    ),
    "local response": FloatProgram(
        lambda tf, x: tf.nn.lrn(_conv(tf, x), depth_radius=1, bias=1.5, alpha=0.2, beta=0.6)
    ),
    "mean": FloatProgram(lambda tf, x: tf.reduce_mean(_conv(tf, x), (1, 2))),
    "mean kept": FloatProgram(lambda tf, x: tf.reduce_mean(_conv(tf, x), (1, 2), keepdims=True)),
    "mean of channels": FloatProgram(lambda tf, x: tf.reduce_mean(_conv(tf, x), -1)),
    "mean of rows": FloatProgram(lambda tf, x: tf.reduce_mean(_conv(tf, x), 1)),
    "mean of tokens": FloatProgram(lambda tf, x: tf.reduce_mean(x, 1), (1, 7, 6)),
    "sum": FloatProgram(lambda tf, x: tf.reduce_sum(_conv(tf, x), (1, 2))),
    "max": FloatProgram(lambda tf, x: tf.reduce_max(_conv(tf, x), (1, 2))),
    "min": FloatProgram(lambda tf, x: tf.reduce_min(_conv(tf, x), (1, 2), keepdims=True)),
    "product": FloatProgram(lambda tf, x: tf.reduce_prod(_conv(tf, x), -1)),
    "layer norm": FloatProgram(_layer_norm),
    "gate": FloatProgram(_gate),
    "attention": FloatProgram(_attention),
    "shuffled channels": FloatProgram(_shuffled),
    "add": FloatProgram(lambda tf, x: tf.nn.relu(_conv(tf, x) + _conv(tf, x * x))),
    "add of another rank": FloatProgram(
        lambda tf, x: _conv(tf, x) + tf.reduce_mean(_conv(tf, x), (0, 1, 2))
    ),
    "add of a picture": FloatProgram(lambda tf, x: _conv(tf, x) + _weights(7, 6, 5)),
    "subtract from": FloatProgram(lambda tf, x: 2.0 - _conv(tf, x)),
    "divide": FloatProgram(lambda tf, x: _conv(tf, x) / (x[..., :1] * x[..., :1] + 1.0)),
    "multiply and pool": FloatProgram(
        lambda tf, x: tf.nn.max_pool2d(_conv(tf, x) * _weights(5) + _weights(5), 2, 2, "VALID")
    ),
    "maximum": FloatProgram(lambda tf, x: tf.maximum(_conv(tf, x), tf.minimum(x[..., :1], 0.3))),
    "squared difference": FloatProgram(
        lambda tf, x: tf.math.squared_difference(_conv(tf, x), x[..., :1])
    ),
    "power": FloatProgram(lambda tf, x: tf.pow(_conv(tf, x) ** 2.0 + 1.0, 0.3)),
    "floor divide": FloatProgram(lambda tf, x: tf.math.floordiv(_conv(tf, x), 0.7)),
    "choices": FloatProgram(_chosen),
    "cast": FloatProgram(lambda tf, x: tf.cast(tf.cast(x, tf.int32), tf.float32)),
    "relu6": FloatProgram(lambda tf, x: tf.nn.relu6(x)),
    "relu": FloatProgram(lambda tf, x: tf.nn.relu(x)),
    "relu from -1 to 1": FloatProgram(lambda tf, x: tf.minimum(tf.maximum(x, -1.0), 1.0)),
    "relu from 0 to 1": FloatProgram(lambda tf, x: tf.maximum(tf.minimum(x, 1.0), 0.0)),
    "leaky relu": FloatProgram(_of("leaky_relu", alpha=0.3)),
    "prelu": FloatProgram(_prelu),
    "elu": FloatProgram(_of("elu")),
    "gelu": FloatProgram(_of("gelu", approximate=False)),
    "gelu by tanh": FloatProgram(_of("gelu", approximate=True)),
    "hard swish": FloatProgram(_hard_swish),
    "swish": FloatProgram(_of("swish")),
    "tanh": FloatProgram(_of("tanh")),
    "softmax": FloatProgram(_of("softmax")),
    "log softmax": FloatProgram(_of("log_softmax")),
    "l2 normalisation": FloatProgram(lambda tf, x: tf.math.l2_normalize(x, -1), (1, 12)),
    "exp": FloatProgram(_of("exp")),
    **{
        name: FloatProgram(_alone(name))
        for name in ("abs", "ceil", "cos", "floor", "negative", "round", "sign", "sin", "square")
    },
    **{name: FloatProgram(_alone(name), low=0.5) for name in ("log", "rsqrt", "sqrt")},
    "pad": FloatProgram(lambda tf, x: tf.pad(_conv(tf, x), ((0, 0), (1, 2), (0, 1), (2, 0)))),
    "pad with ones": FloatProgram(
        lambda tf, x: tf.pad(_conv(tf, x), ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=1.0)
    ),
    "reflect": FloatProgram(
        lambda tf, x: tf.pad(_conv(tf, x), ((0, 0), (2, 1), (1, 3), (0, 0)), "REFLECT")
    ),
    "repeat the edge": FloatProgram(
        lambda tf, x: tf.pad(_conv(tf, x), ((0, 0), (1, 1), (1, 0), (0, 0)), "SYMMETRIC")
    ),
    "reshape to images": FloatProgram(
        lambda tf, x: _conv(tf, tf.reshape(_conv(tf, x), (1, 6, 7, 5)))
    ),
    "grey image without an axis for it": FloatProgram(
        lambda tf, x: _conv(tf, tf.expand_dims(x, -1)), (1, 7, 6)
    ),
    "squeeze": FloatProgram(
        lambda tf, x: tf.squeeze(tf.reduce_mean(_conv(tf, x), (1, 2), keepdims=True), (1, 2))
    ),
    "transpose": FloatProgram(lambda tf, x: tf.transpose(_conv(tf, x), (0, 3, 1, 2)) + 1.0),
    "turn": FloatProgram(lambda tf, x: _conv(tf, tf.transpose(_conv(tf, x), (0, 2, 1, 3)))),
    "concat": FloatProgram(lambda tf, x: tf.concat((_conv(tf, x), x, _conv(tf, x, 1)), -1)),
    "concat of rows with a constant": FloatProgram(
        lambda tf, x: tf.concat((_conv(tf, x), _weights(1, 2, 6, 5)), 1)
    ),
    "pack": FloatProgram(lambda tf, x: tf.stack((_conv(tf, x), _conv(tf, x, 1)), 1)),
    "unpack": FloatProgram(
        lambda tf, x: (lambda parts: parts[0] * parts[2])(tf.unstack(_conv(tf, x), axis=1))
    ),
    "split": FloatProgram(
        lambda tf, x: (lambda parts: parts[1] - parts[0])(tf.split(_conv(tf, x, 3, 6), 2, -1))
    ),
    "split unevenly": FloatProgram(
        lambda tf, x: tf.concat(tf.split(_conv(tf, x, 3, 6), (1, 2, 3), -1)[::-1], -1)
    ),
    "slice": FloatProgram(lambda tf, x: tf.slice(_conv(tf, x), (0, 1, 2, 0), (1, 4, 3, 2))),
    "strided slice": FloatProgram(lambda tf, x: _conv(tf, x)[:, 1:-1:2, ::-1, 1:]),
    "one row": FloatProgram(lambda tf, x: _conv(tf, x)[:, -2]),
    "gather": FloatProgram(lambda tf, x: tf.gather(_conv(tf, x), (3, 0, 3), axis=3)),
    "gather one": FloatProgram(lambda tf, x: tf.gather(_conv(tf, x), 2, axis=2)),
    "reverse": FloatProgram(lambda tf, x: tf.reverse(_conv(tf, x), (2,))),
    "tile": FloatProgram(lambda tf, x: tf.tile(_conv(tf, x), (1, 2, 1, 3))),
    "mask": FloatProgram(_masked),
    "broadcast": FloatProgram(
        lambda tf, x: tf.broadcast_to(tf.reduce_mean(x, (1, 2), keepdims=True), (1, 3, 5, 4))
    ),
    "space to depth": FloatProgram(
        lambda tf, x: _conv(tf, tf.nn.space_to_depth(x, 2)), (1, 8, 6, 3)
    ),
    "depth to space": FloatProgram(lambda tf, x: tf.nn.depth_to_space(_conv(tf, x, 3, 12), 2)),
    **{
        f"resize {method} {height}x{width} {how}": FloatProgram(
            _resize(operation, height, width, **{how: True} if how else {})
        )
        for method, operation in (
            ("bilinear", "ResizeBilinear"),
            ("nearest", "ResizeNearestNeighbor"),
        )
        for height, width in ((14, 18), (10, 11), (3, 4))
        for how in ("", "half_pixel_centers", "align_corners")
    },
}


@cache
def made(name: str) -> bytes:
    """Return a program's TFLite file."""
    tf, program = require("tensorflow"), PROGRAMS[name]
    taken = tf.TensorSpec(program.shape, tf.float32, name=INPUT)
    function = tf.function(lambda value: program.function(tf, value)).get_concrete_function(taken)
    content: bytes = tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()
    return content


def behind_its_shape(name: str) -> bytes:
    """Return a program whose answer is given the shape that SHAPE reads from the input."""
    model, schema = flatbuffer.unpack(made(name)), flatbuffer.schema()
    graph = model.subgraphs[0]
    (start,), (end,) = graph.inputs, graph.outputs
    shape, last = len(graph.tensors), len(graph.tensors) + 1
    graph.tensors.append(
        _tensor("shape", schema.TensorType.INT32, [len(graph.tensors[start].shape)])
    )
    graph.tensors.append(_tensor("reshaped", schema.TensorType.FLOAT32, graph.tensors[start].shape))
    reader = _operator(model, "SHAPE", [start], [shape])
    reader.builtinOptionsType = schema.BuiltinOptions.ShapeOptions
    reader.builtinOptions = schema.ShapeOptionsT()
    reader.builtinOptions.outType = schema.TensorType.INT32
    graph.operators.append(reader)
    graph.operators.append(_operator(model, "RESHAPE", [end, shape], [last]))
    graph.outputs = [last]
    return flatbuffer.pack(model)


def renamed(name: str, old: str, new: str) -> bytes:
    """Return a program with an operator in the place of one that takes the same operands."""
    model, kinds = flatbuffer.unpack(made(name)), flatbuffer.schema().BuiltinOperator
    for code in model.operatorCodes:
        if max(code.builtinCode, code.deprecatedBuiltinCode) == getattr(kinds, old):
            code.builtinCode = getattr(kinds, new)
            code.deprecatedBuiltinCode = min(code.builtinCode, DEPRECATED)
            code.version = 1
    for kind, operator in flatbuffer.operators(model):
        if kind == new:
            operator.builtinOptionsType, operator.builtinOptions = 0, None
    return flatbuffer.pack(model)


def _tensor(name: str, kind: int, shape: Any) -> Any:
    tensor = flatbuffer.schema().TensorT()
    tensor.name, tensor.type, tensor.shape = name.encode(), kind, np.array(shape, np.int32)
    tensor.buffer = 0
    return tensor


def _operator(model: Any, kind: str, inputs: list[int], outputs: list[int]) -> Any:
    schema = flatbuffer.schema()
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
    code.version = 1
    operator.opcodeIndex = len(model.operatorCodes)
    operator.inputs, operator.outputs = inputs, outputs
    model.operatorCodes.append(code)
    return operator


def operators(content: bytes) -> set[str]:
    """Return the names of a file's operators."""
    return {name for name, _ in flatbuffer.operators(flatbuffer.unpack(content))}


def halved(name: str) -> bytes:
    """Return a program's file with float16 kernels, which DEQUANTIZE widens."""
    return tflite_converter.halved(made(name))
