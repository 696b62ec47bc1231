"""Round weights onto the int8 grid; weights not yet rounded compensate each rounding error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.prepare.batches import Batches
from kedge_convert.prepare.compensation import OrderedInputs
from kedge_convert.prepare.graph import Node, Weights
from kedge_runtime.arrays import Doubles, Floats

Positions = NDArray[np.intp]


def flatten(weights: Weights) -> Floats:
    """Return the kernel as [n, outputs], with the groups or channels in front where it has any."""
    kernel = weights.kernel
    if weights.kind == "grouped":
        return kernel.reshape(-1, weights.groups, kernel.shape[3] // weights.groups).swapaxes(0, 1)
    if weights.kind == "depthwise":
        return kernel.reshape(-1, *kernel.shape[2:]).transpose(1, 0, 2)
    return kernel.reshape(-1, kernel.shape[-1])


def restore(flat: NDArray[np.float64], weights: Weights) -> Floats:
    """Return what `flatten` gave in the kernel's own shape, float32."""
    if flat.ndim > 2:
        flat = flat.swapaxes(0, 1)
    return flat.reshape(weights.kernel.shape).astype(np.float32)


def positions(
    node: Node, shape: tuple[int, ...], count: int, rng: np.random.Generator
) -> Positions:
    """Draw output positions, [up to count, 2]; a dense layer's rows have one each.

    A transposed convolution's have a part of the taps each: it gets more, by its strides.
    """
    height, width = _output_size(node, shape)
    if _is_transposed(node):
        count *= math.prod(node.layer.strides)
    drawn = rng.choice(height * width, min(count, height * width), replace=False)
    return np.stack([drawn // width, drawn % width], axis=1)


def sample(node: Node, value: Batches, at: Positions) -> Floats:
    """Return the windows at the positions as rows, [samples, n], in groups as `flatten` has."""
    assert node.weights is not None
    if node.weights.kind == "dense":
        return value.rows()
    taps = list(np.ndindex(*_size(node)))
    if node.weights.kind == "depthwise":
        channels, samples = value.shape[-1], len(value) * len(at)
        rows = np.empty((channels, len(taps), samples), np.float32)
        for i, tap in enumerate(taps):
            rows[:, i] = _tap(node, value, at, tap).reshape(samples, channels).T
        return rows.swapaxes(1, 2)
    seen = [_tap(node, value, at, tap) for tap in taps]
    one = np.stack(seen, axis=2) if len(seen) > 1 else seen[0]
    groups, samples = node.weights.groups, len(value) * len(at)
    if groups == 1:
        return one.reshape(samples, -1)
    parts = one.reshape(samples, len(taps), groups, -1)
    return parts.transpose(2, 0, 1, 3).reshape(groups, samples, -1)


def _tap(node: Node, value: Batches, at: Positions, tap: tuple[int, ...]) -> Floats:
    """Return what one kernel position sees, [images, positions, channels]; zeros outside."""
    height, width = value.shape[1:3]
    starts = [before for before, _ in _padding(node, value.shape)]
    reached = _between if _is_transposed(node) else _beside
    rows, columns = (reached(node, i, at[:, i], tap[i], starts[i]) for i in (0, 1))
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    seen = value.at(rows.clip(0, height - 1), columns.clip(0, width - 1))
    return np.asarray(seen * inside[:, None], np.float32)


def _beside(node: Node, side: int, at: Positions, tap: int, start: int) -> Positions:
    """Return the input's rows, or columns, that outputs see by a tap."""
    return np.asarray(at * node.layer.strides[side] + tap * node.layer.dilation_rate[side] - start)


def _between(node: Node, side: int, at: Positions, tap: int, start: int) -> Positions:
    """Return those of a transposed convolution, -1 where an output sees none by this tap.

    Its outputs lie a part of a step apart: a tap reaches every `strides`-th one.
    """
    offset = at + start - tap * node.layer.dilation_rate[side]
    steps, part = np.divmod(offset, node.layer.strides[side])
    return np.where(part == 0, steps, -1)


def _is_transposed(node: Node) -> bool:
    return node.weights is not None and node.weights.kind == "transposed"


def _size(node: Node) -> tuple[int, int]:
    assert node.weights is not None
    height, width = node.weights.kernel.shape[:2]
    return height, width


def _padding(node: Node, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return (before, after) of both sides; `same` pads as TensorFlow does, the odd one after."""
    if node.layer.padding == "valid":
        return [(0, 0), (0, 0)]
    missing = [
        max((steps - 1) * stride + (size - 1) * dilation + 1 - length, 0)
        for length, steps, stride, size, dilation in _strided(node, shape)
    ]
    return [(total // 2, total - total // 2) for total in missing]


def _output_size(node: Node, shape: tuple[int, ...]) -> tuple[int, int]:
    assert node.weights is not None
    if node.weights.kind == "dense":
        return 1, 1
    if _is_transposed(node):
        height, width = node.layer.compute_output_shape(shape)[1:3]
        return height, width
    paddings = _padding(node, shape)
    height, width = (
        (length + before + after - (size - 1) * dilation - 1) // stride + 1
        for (length, stride, size, dilation), (before, after) in zip(
            _sides(node, shape), paddings, strict=True
        )
    )
    return height, width


def _strided(node: Node, shape: tuple[int, ...]) -> list[tuple[int, int, int, int, int]]:
    """Return (length, steps in it, stride, kernel size, dilation) of both padded sides.

    `same` pads what the steps go over: the input, or a transposed convolution's output.
    """
    sides = _sides(node, shape)
    steps, lengths = [-(-length // stride) for length, stride, *_ in sides], shape[1:3]
    if _is_transposed(node):
        steps, lengths = list(lengths), _output_size(node, shape)
    return [(lengths[i], steps[i], *sides[i][1:]) for i in (0, 1)]


def _sides(node: Node, shape: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Return (length, stride, kernel size, dilation) of both sides."""
    layer = node.layer
    return list(zip(shape[1:3], layer.strides, _size(node), layer.dilation_rate, strict=True))


LEVELS = 127
DAMPING = 0.01  # of the mean second moment, as in GPTQ
# Inputs. Up to SMALL their matrix is inverted in a second. Beyond LARGEST it would take minutes.
SMALL = 1536
LARGEST = 6000


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


def plain(weights: Doubles, grid: Grid = PLAIN) -> Doubles:
    """Return weights, [..., n, outputs], rounded to the nearest of the grid."""
    step = grid.step(weights)
    return np.asarray(np.rint(weights / step) * step)


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
        ridge = _ridge(np.einsum("...ii->...", self.own)[..., None, None], n, self.count)
        return self.own + ridge * np.eye(n), self.cross + ridge * np.eye(n)


def _ridge(trace: Doubles, n: int, count: int) -> Doubles:
    return np.asarray(trace / n * (DAMPING + n / max(count, 1)) + 1e-12)


PART = 64  # channels whose moments are computed at once


def moments(rounded: NDArray[np.float32], floats: NDArray[np.float32], count: int) -> Moments:
    """Return the moments of inputs [..., samples, n]."""
    *stacked, samples, n = rounded.shape
    own, cross = (np.empty((*stacked, n, n)) for _ in range(2))
    # Channels and groups one part after the other: all of them, centred, would be two copies.
    for part in _parts(stacked):
        x, f = _centred(rounded[part]), _centred(floats[part])
        turned = np.swapaxes(x, -1, -2)
        own[part], cross[part] = np.matmul(turned, x), np.matmul(turned, f)
    return Moments(own / samples, cross / samples, count)


def _parts(stacked: Sequence[int]) -> list[slice]:
    """Return slices over the channels or groups, PART long each; one of all rows without any."""
    if not stacked:
        return [slice(None)]
    return [slice(at, at + PART) for at in range(0, stacked[0], PART)]


def _centred(values: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(values - values.mean(axis=-2, keepdims=True))


def on_grid(weights: Doubles, moments: Moments, grid: Grid = PLAIN) -> Doubles:
    """Return weights, [..., n, outputs], on the grid."""
    own, cross = moments.damped()
    inputs = OrderedInputs.of(own)
    wanted = inputs.solved(np.matmul(cross, weights))
    step, levels = grid.step(wanted), grid.levels
    # In steps, so that a level is a whole number.
    return _with_largest(wanted, inputs.compensated(wanted / step, levels), step, levels)


def _with_largest(wanted: Doubles, integers: Doubles, step: Doubles, levels: int) -> Doubles:
    """Return integers as weights; each output's largest sets its step, so it stays."""
    largest = np.abs(wanted) >= step * levels * (1 - 1e-9)
    return np.asarray(np.where(largest, np.sign(wanted) * levels, integers) * step)


def on_grid_by_inputs(
    weights: Doubles, inputs: tuple[Floats, Floats], count: int, grid: Grid = PLAIN
) -> Doubles:
    """Return weights, [..., n, outputs], on the grid.

    `inputs`: [..., samples, n] in the rounded network and in the float one; `count`: how many of
    the samples are independent.
    """
    samples, n = inputs[0].shape[-2:]
    if n <= SMALL or (n <= LARGEST and samples > n // 2):
        return on_grid(weights, moments(*inputs, count), grid)
    if samples <= n // 2:
        return _by_samples(weights, inputs, count, grid)
    return _by_blocks(weights, inputs, count, grid)


def _by_samples(weights: Doubles, inputs: tuple[Floats, Floats], count: int, grid: Grid) -> Doubles:
    """Return what `on_grid` does but for float rounding, without a matrix [n, n].

    Fewer samples than inputs: by the matrix inversion lemma one of [samples, samples] is enough.
    """
    x, f = (_centred(value.astype(np.float64)) / len(value) ** 0.5 for value in inputs)
    power = np.square(x).sum(axis=0)
    ridge = _ridge(power.sum(), len(power), count)
    inverse = np.linalg.inv(x @ x.T + ridge * np.eye(len(x)))
    wanted = weights + x.T @ (inverse @ ((f - x) @ weights))
    step = grid.step(wanted)
    steps, order = wanted / step, np.argsort(-power, kind="stable")
    integers = np.empty_like(steps)
    integers[order] = _in_order_by_samples(steps[order], x.T[order], inverse, grid.levels)
    return _with_largest(wanted, integers, step, grid.levels)


def _in_order_by_samples(
    weights: Doubles, inputs: Doubles, inverse: Doubles, levels: int
) -> Doubles:
    """Return integers. `inverse`: of the Gram matrix of `inputs`, [n, samples], plus the ridge.

    A weight makes good its part of the output error so far; then its input leaves the inverse.
    """
    integers = np.empty_like(weights)
    error, inverse = np.zeros((inputs.shape[1], weights.shape[1])), inverse.copy()
    for i, column in enumerate(inputs):
        seen = inverse @ column
        integers[i] = np.clip(np.rint(weights[i] - seen @ error), -levels, levels)
        error += column[:, None] * (integers[i] - weights[i])
        inverse += seen[:, None] * (seen / (1 - column @ seen))
    return integers


def _by_blocks(weights: Doubles, inputs: tuple[Floats, Floats], count: int, grid: Grid) -> Doubles:
    """Return weights on the grid; each block of inputs makes good its own errors alone."""
    n = len(weights)
    edges = np.linspace(0, n, -(-n // SMALL) + 1).astype(int)
    blocks = [slice(*ends) for ends in pairwise(edges)]
    rounded, floats = inputs
    parts, wanted = [], np.empty_like(weights)
    for block in blocks:
        own, cross = moments(rounded[:, block], floats[:, block], count).damped()
        parts.append(OrderedInputs.of(own))
        wanted[block] = parts[-1].solved(cross @ weights[block])
    step, integers = grid.step(wanted), np.empty_like(weights)
    for block, part in zip(blocks, parts, strict=True):
        integers[block] = part.compensated((wanted / step)[block], grid.levels)
    return _with_largest(wanted, integers, step, grid.levels)
