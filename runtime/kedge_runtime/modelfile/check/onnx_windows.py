"""Compute the output shapes of ONNX convolutions and pools, and fold small lists."""

import math
from collections.abc import Callable

import numpy as np

from kedge_runtime.arrays import Indices
from kedge_runtime.modelfile.check.onnx_shapes import OnnxStep, Shapes
from kedge_runtime.modelfile.check.tflite_shapes import MAX_STEP, Shape, UnsoundError


def _window(step: OnnxStep, kernel: Shape) -> tuple[Shape, Shape, Shape]:
    """Return strides, dilations and pads, checked; `kernel`: its sides."""
    rank, numbers = len(kernel), step.node.integers
    strides, dilations = (numbers.get(name, (1,) * rank) for name in ("strides", "dilations"))
    pads = numbers.get("pads", (0,) * 2 * rank)
    if (len(strides), len(dilations), len(pads)) != (rank, rank, 2 * rank):
        raise UnsoundError(f"its strides, dilations or pads don't fit {rank} sides")
    if not all(1 <= step <= MAX_STEP for step in (*kernel, *strides, *dilations)):
        raise UnsoundError(
            f"its kernel, strides and dilations are {kernel}, {strides}, {dilations}"
        )
    if not all(0 <= pad <= MAX_STEP for pad in pads):
        raise UnsoundError(f"its pads are {pads}")
    if (auto := step.node.texts.get("auto_pad", "NOTSET")) not in AUTO:
        raise UnsoundError(f"its auto_pad is {auto!r}"[:60])
    return strides, dilations, pads


AUTO = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def _slid(step: OnnxStep, sizes: Shape, kernel: Shape) -> Shape:
    strides, dilations, pads = _window(step, kernel)
    auto, ceil = step.node.texts.get("auto_pad", "NOTSET"), step.attribute("ceil_mode")
    result = []
    for i, size in enumerate(sizes):
        if auto.startswith("SAME"):
            result.append(-(-size // strides[i]))
            continue
        added = 0 if auto == "VALID" else pads[i] + pads[i + len(sizes)]
        room = size + added - (kernel[i] - 1) * dilations[i] - 1
        if room < 0:
            raise UnsoundError(f"its kernel {kernel} is larger than the input {sizes}")
        result.append((-(-room // strides[i]) if ceil else room // strides[i]) + 1)
    return tuple(result)


def _group(step: OnnxStep, weights: int, channels: int) -> int:
    """Return the number of groups; the input `weights` must be a constant of 3 to 5 sides.

    DequantizeLinear of a constant counts as one.
    """
    shape, value = step.shape(weights), step.value(weights)
    if not 3 <= len(shape) <= 5 or min(shape) < 1 or not value.constant:
        raise UnsoundError(f"its weights are computed, or have the shape {shape}")
    if step.node.kind in ("Conv", "ConvTranspose") and value.dtype not in REALS:
        raise UnsoundError(f"its weights are {value.dtype}")
    group = step.attribute("group", 1)
    if group < 1 or channels % group:
        raise UnsoundError(f"its {channels} channels don't make {group} groups")
    if step.node.integers.get("kernel_shape", shape[2:]) != shape[2:]:
        raise UnsoundError("its kernel_shape isn't that of the weights")
    return group


REALS = ("", "float32", "float16", "float64")


def _bias(step: OnnxStep, place: int, count: int) -> None:
    bias = step.given(place)
    if bias is not None and bias.shape != (count,):
        raise UnsoundError(f"its bias has the shape {bias.shape} for {count} channels")


def conv(step: OnnxStep, image: int = 0, weights: int = 1, bias: int = 2) -> Shapes:
    """Convolve [n, c, ...] with weights [channels, c / group, ...]."""
    n, c, *sizes = step.shape(image)
    group, (channels, depth, *kernel) = _group(step, weights, c), step.shape(weights)
    if depth * group != c or channels % group or len(kernel) != len(sizes):
        raise UnsoundError(f"its weights {step.shape(weights)} don't fit {c} channels")
    _bias(step, bias, channels)
    return [(n, channels, *_slid(step, tuple(sizes), tuple(kernel)))]


def qlinear_conv(step: OnnxStep) -> Shapes:
    """Convolve as `conv`; a scale and a zero point follow each input."""
    return conv(step, 0, 3, 8)


def integer_conv(step: OnnxStep) -> Shapes:
    """Convolve as `conv`, without bias."""
    return conv(step, bias=9)


def conv_transpose(step: OnnxStep) -> Shapes:
    """Convolve transposed [n, c, ...] with weights [c, channels / group, ...]."""
    n, c, *sizes = step.shape()
    group, (depth, channels, *kernel) = _group(step, 1, c), step.shape(1)
    if depth != c or len(kernel) != len(sizes):
        raise UnsoundError(f"its weights {step.shape(1)} don't fit {c} channels")
    strides, dilations, pads = _window(step, tuple(kernel))
    rank = len(sizes)
    extra = step.node.integers.get("output_padding", (0,) * rank)
    if len(extra) != rank or not all(
        0 <= e < max(s, 2) for e, s in zip(extra, strides, strict=True)
    ):
        raise UnsoundError(f"its output_padding is {extra}")
    _bias(step, 2, channels * group)
    whole = [
        stride * (size - 1) + pad + (side - 1) * dilation + 1
        for size, side, stride, dilation, pad in zip(
            sizes, kernel, strides, dilations, extra, strict=True
        )
    ]
    stated = step.node.integers.get("output_shape")
    if step.node.texts.get("auto_pad", "NOTSET").startswith("SAME"):
        found = tuple(size * stride for size, stride in zip(sizes, strides, strict=True))
    else:
        found = tuple(whole[i] - pads[i] - pads[i + rank] for i in range(rank))
    found = tuple(stated[-rank:]) if stated else found
    if any(
        not 1 <= side <= most + stride
        for side, most, stride in zip(found, whole, strides, strict=True)
    ):
        raise UnsoundError(f"it gives sides of {found}")
    return [(n, channels * group, *found)]


def pool(step: OnnxStep) -> Shapes:
    """Pool [n, c, ...] by windows."""
    n, c, *sizes = step.shape()
    kernel = step.node.integers.get("kernel_shape", ())
    if len(kernel) != len(sizes) or not sizes:
        raise UnsoundError(f"its kernel is {kernel}")
    _, _, pads = _window(step, kernel)
    if any(pad >= side for pad, side in zip(pads, kernel * 2, strict=True)):
        raise UnsoundError(f"its pads {pads} aren't smaller than its kernel {kernel}")
    if len(step.node.outputs) != 1:
        raise UnsoundError(f"it gives {len(step.node.outputs)} tensors")
    return [(n, c, *_slid(step, tuple(sizes), kernel))]


def global_pool(step: OnnxStep) -> Shapes:
    """Pool to [n, c, 1, ...]."""
    shape = step.shape()
    if len(shape) < 3:
        raise UnsoundError(f"it takes {len(shape)} dimensions")
    return [(*shape[:2], *(1,) * (len(shape) - 2))]


def qlinear_global(step: OnnxStep) -> Shapes:
    """Pool as `global_pool`, in either layout."""
    if step.attribute("channels_last"):
        n, *sides, c = step.shape()
        return [(n, *(1,) * len(sides), c)]
    return global_pool(step)


Fold = Callable[[OnnxStep], Indices]


def fold(step: OnnxStep, shapes: Shapes) -> Indices | None:
    """Return the numbers of a small list that follow from known lists, or None."""
    kind = FOLDS.get(step.node.kind)
    if kind is None or math.prod(shapes[0]) > 1024:
        return None
    if step.node.kind != "Shape" and any(v is not None and v.integers is None for v in step.inputs):
        return None
    try:
        found = np.asarray(kind(step), np.int64)
    except (ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError):
        return None
    return found if found.shape == tuple(shapes[0]) else None


def _integers(step: OnnxStep, place: int) -> Indices:
    integers = step.value(place).integers
    if integers is None:
        raise ValueError("not known")
    return integers


def _divided(step: OnnxStep) -> Indices:
    """Return a quotient, or with the operator Mod the rest."""
    if not _integers(step, 1).all():
        raise ValueError("a division by zero")
    quotient, rest = np.divmod(_integers(step, 0), _integers(step, 1))
    return rest if step.node.kind == "Mod" else quotient


def _sliced(step: OnnxStep) -> Indices:
    values = _integers(step, 0)
    steps = step.list(4) if step.given(4) else None
    begin, end, stride = step.list(1)[0], step.list(2)[0], steps[0] if steps else 1
    return values[begin:end:stride]


FOLDS: dict[str, Fold] = {
    "Shape": lambda step: np.array(step.shape(), np.int64)[
        step.attribute("start") : step.node.integers.get("end", (None,))[0]
    ],
    "Gather": lambda step: np.take(
        _integers(step, 0), _integers(step, 1), axis=step.attribute("axis")
    ),
    "Slice": _sliced,
    "Concat": lambda step: np.concatenate([_integers(step, i) for i in range(len(step.inputs))]),
    "Unsqueeze": lambda step: _integers(step, 0).reshape(-1)[: _integers(step, 0).size],
    "Squeeze": lambda step: _integers(step, 0).reshape(()),
    "Cast": lambda step: _integers(step, 0),
    "Identity": lambda step: _integers(step, 0),
    "Add": lambda step: _integers(step, 0) + _integers(step, 1),
    "Sub": lambda step: _integers(step, 0) - _integers(step, 1),
    "Mul": lambda step: _integers(step, 0) * _integers(step, 1),
    "Div": _divided,
    "Mod": _divided,
    "ReduceProd": lambda step: _integers(step, 0).prod(
        keepdims=bool(step.attribute("keepdims", 1))
    ),
}
