"""Round weights onto the int8 grid; weights not yet rounded compensate each rounding error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kedge_convert.prepare.graph import Node, Weights
from kedge_runtime.arrays import Doubles, Floats

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
    taps = list(np.ndindex(*_size(node)))
    if node.weights.kind == "depthwise":
        channels, samples = value.shape[-1], len(value) * len(at)
        rows = np.empty((channels, len(taps), samples), np.float32)
        for i, tap in enumerate(taps):
            rows[:, i] = _tap(node, value, at, tap).reshape(samples, channels).T
        return rows.swapaxes(1, 2)
    seen = [_tap(node, value, at, tap) for tap in taps]
    one = np.stack(seen, axis=2) if len(seen) > 1 else seen[0]
    return one.reshape(len(value) * len(at), -1)


def _tap(node: Node, value: Floats, at: Positions, tap: tuple[int, ...]) -> Floats:
    """Return what one kernel position sees, [images, positions, channels]; zeros outside."""
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


LEVELS = 127
DAMPING = 0.01  # of the mean second moment, as in GPTQ
BLOCK = 64


@dataclass(frozen=True)
class Grid:
    """A layer's grid: up to `levels` steps on either side of zero.

    `shared`: all outputs have one step, instead of one each.
    """

    levels: int = LEVELS
    shared: bool = False

    def step(self, weights: Doubles) -> Doubles:
        """Return the step of each output, [..., 1, outputs], for weights [..., n, outputs]."""
        peaks = np.abs(weights).max(axis=-2, keepdims=True)
        if self.shared:
            peaks = np.full_like(peaks, peaks.max())
        return np.asarray(np.maximum(peaks, 1e-12) / self.levels)


PLAIN = Grid()


@dataclass(frozen=True)
class Moments:
    """Sums over sampled inputs x (rounded network) and f (float network), means taken off.

    `own`: E[x x'], `cross`: E[x f'], both [..., n, n]; `count`: how many independent samples.
    Without the means, because the bias makes those good.
    """

    own: Doubles
    cross: Doubles
    count: int

    def damped(self) -> tuple[Doubles, Doubles]:
        """Return own and cross, both drawn towards a multiple of the identity.

        Beyond GPTQ's constant it grows with n / count: few samples say little about many weights.
        """
        n = self.own.shape[-1]
        mean = np.einsum("...ii->...", self.own)[..., None, None] / n
        ridge = mean * (DAMPING + n / max(self.count, 1)) + 1e-12
        return self.own + ridge * np.eye(n), self.cross + ridge * np.eye(n)


def moments(rounded: NDArray[np.float32], floats: NDArray[np.float32], count: int) -> Moments:
    """Return the moments of inputs [..., samples, n]."""
    x = rounded - rounded.mean(axis=-2, keepdims=True)
    f = floats - floats.mean(axis=-2, keepdims=True)
    turned = np.swapaxes(x, -1, -2)
    samples = x.shape[-2]
    own, cross = np.matmul(turned, x), np.matmul(turned, f)
    return Moments(own.astype(np.float64) / samples, cross.astype(np.float64) / samples, count)


def on_grid(weights: Doubles, moments: Moments, grid: Grid = PLAIN) -> Doubles:
    """Return weights, [..., n, outputs], on the grid."""
    own, cross = moments.damped()
    order = _order(own)
    factor = _inverse_factor(own[..., order[:, None], order])
    aimed = np.matmul(cross, weights)[..., order, :]
    # The inverse of the own moments, times what the float network's moments ask for.
    wanted = np.matmul(np.swapaxes(factor, -1, -2), np.matmul(factor, aimed))
    step, levels = grid.step(wanted), grid.levels
    # In steps, so that a level is a whole number.
    integers = _compensated(wanted / step, factor, levels)
    largest = np.abs(wanted) >= step * levels * (1 - 1e-9)
    result: Doubles = np.empty_like(wanted)
    result[..., order, :] = np.where(largest, np.sign(wanted) * levels, integers) * step
    return result


def _order(own: Doubles) -> Positions:
    """Return in which order inputs are rounded: where outputs share them, by their moments."""
    if own.ndim > 2:
        return np.arange(own.shape[-1])
    return np.argsort(-np.diag(own), kind="stable")


def plain(weights: Doubles, grid: Grid = PLAIN) -> Doubles:
    """Return weights rounded to the nearest of the grid, for layers with too many inputs."""
    step = grid.step(weights)
    return np.asarray(np.rint(weights / step) * step)


def _inverse_factor(own: Doubles) -> Doubles:
    """Return the upper factor U of U' U = inv(own): it has all the conditional inverses.

    Read backwards, own = R R' with an upper R, and U is its inverse. That takes a fifth of the
    work of the inverse and its own factor.
    """
    backwards: Doubles = np.linalg.cholesky(own[..., ::-1, ::-1]).astype(np.float64)
    return _inverse_of_upper(backwards[..., ::-1, ::-1])


def _inverse_of_upper(factor: Doubles) -> Doubles:
    """Return the inverse of upper triangular matrices, [..., n, n], half by half."""
    n = factor.shape[-1]
    if n <= BLOCK:
        return np.asarray(np.linalg.inv(factor))
    first, last = slice(None, n // 2), slice(n // 2, None)
    inverse = np.zeros_like(factor)
    for half in (first, last):
        inverse[..., half, half] = _inverse_of_upper(factor[..., half, half])
    between = np.matmul(inverse[..., first, first], factor[..., first, last])
    inverse[..., first, last] = -np.matmul(between, inverse[..., last, last])
    return inverse


def _compensated(weights: Doubles, factor: Doubles, levels: int) -> Doubles:
    """Return integers, rounded input by input; those that are left make each error good."""
    left, integers = weights.copy(), np.empty_like(weights)
    for start in range(0, weights.shape[-2], BLOCK):
        end = min(start + BLOCK, weights.shape[-2])
        errors = _round_block(left, integers, factor, levels, slice(start, end))
        later = np.swapaxes(factor[..., start:end, end:], -1, -2)
        left[..., end:, :] -= np.matmul(later, errors)
    return integers


def _round_block(
    left: Doubles, integers: Doubles, factor: Doubles, levels: int, block: slice
) -> Doubles:
    """Round the rows of a block, moving its later rows; return the errors for those behind it."""
    errors = np.empty_like(left[..., block, :])
    for i in range(block.start, block.stop):
        row = left[..., i, :]
        rounded = np.clip(np.rint(row), -levels, levels)
        integers[..., i, :] = rounded
        error = (row - rounded) / factor[..., i, i][..., None]
        errors[..., i - block.start, :] = error
        move = factor[..., i, i + 1 : block.stop]
        left[..., i + 1 : block.stop, :] -= move[..., :, None] * error[..., None, :]
    return errors
