"""What a layer sees: its input windows as rows, and its kernel as the matrix that multiplies them.

Depthwise layers have one small matrix per channel, [channels, taps, multiplier]; the others have
one for all, [taps * channels, outputs].
"""

import numpy as np
from numpy.typing import NDArray

from kedge_convert.prepare.graph import Node, Weights
from kedge_runtime.head import Floats

Positions = NDArray[np.intp]


def flatten(weights: Weights) -> Floats:
    """Return the kernel as [n, outputs], or [channels, taps, multiplier] for a depthwise one."""
    kernel = weights.kernel
    if weights.kind == "depthwise":
        return kernel.reshape(-1, *kernel.shape[2:]).transpose(1, 0, 2)
    return kernel.reshape(-1, kernel.shape[-1])


def restore(flat: NDArray[np.float64], weights: Weights) -> Floats:
    """Return what `flatten` gave in the kernel's own shape, float32."""
    if weights.kind == "depthwise":
        flat = flat.transpose(1, 0, 2)
    return flat.reshape(weights.kernel.shape).astype(np.float32)


def positions(
    node: Node, shape: tuple[int, ...], count: int, rng: np.random.Generator
) -> Positions:
    """Draw output positions, [up to count, 2]; a dense layer's rows have one each."""
    height, width = _output_size(node, shape)
    drawn = rng.choice(height * width, min(count, height * width), replace=False)
    return np.stack([drawn // width, drawn % width], axis=1)


def sample(node: Node, value: Floats, at: Positions) -> Floats:
    """Return the windows at the positions as rows, [samples, n] or [channels, samples, taps]."""
    assert node.weights is not None
    if node.weights.kind == "dense":
        return value.reshape(-1, value.shape[-1])
    rows = np.stack([_tap(node, value, at, tap) for tap in np.ndindex(*_size(node))], axis=2)
    if node.weights.kind == "depthwise":
        channels = rows.transpose(3, 0, 1, 2)
        return channels.reshape(channels.shape[0], -1, channels.shape[-1])
    return rows.reshape(rows.shape[0] * rows.shape[1], -1)


def _tap(node: Node, value: Floats, at: Positions, tap: tuple[int, ...]) -> Floats:
    """Return what one kernel position sees, [pictures, positions, channels]; zeros outside."""
    height, width = value.shape[1:3]
    starts = [before for before, _ in _padding(node, value.shape)]
    layer = node.layer
    rows, columns = (
        at[:, i] * layer.strides[i] + tap[i] * layer.dilation_rate[i] - starts[i] for i in (0, 1)
    )
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    seen = value[:, rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return np.asarray(seen * inside[:, None], np.float32)


def _size(node: Node) -> tuple[int, int]:
    assert node.weights is not None
    height, width = node.weights.kernel.shape[:2]
    return height, width


def _padding(node: Node, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return (before, after) of both sides; `same` pads as TensorFlow does, the odd one after."""
    if node.layer.padding == "valid":
        return [(0, 0), (0, 0)]
    missing = [
        max((-(-length // stride) - 1) * stride + (size - 1) * dilation + 1 - length, 0)
        for length, stride, size, dilation in _sides(node, shape)
    ]
    return [(total // 2, total - total // 2) for total in missing]


def _output_size(node: Node, shape: tuple[int, ...]) -> tuple[int, int]:
    assert node.weights is not None
    if node.weights.kind == "dense":
        return 1, 1
    paddings = _padding(node, shape)
    height, width = (
        (length + before + after - (size - 1) * dilation - 1) // stride + 1
        for (length, stride, size, dilation), (before, after) in zip(
            _sides(node, shape), paddings, strict=True
        )
    )
    return height, width


def _sides(node: Node, shape: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Return (length, stride, kernel size, dilation) of both sides."""
    layer = node.layer
    return list(zip(shape[1:3], layer.strides, _size(node), layer.dilation_rate, strict=True))
