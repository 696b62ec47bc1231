"""Weights onto the int8 grid, each rounding error made good by the weights not yet rounded.

Frantar et al. 2022 (GPTQ, arXiv:2210.17323) after Hassibi & Stork 1993: with the second moments H
of a layer's inputs, rounding weight i by e costs e^2 / inv(H)[i, i] once the others have moved to
compensate, which they do in closed form. Here the inputs are those of the network whose earlier
layers are rounded already, and the target is the float network's output on its own inputs, so that
a layer also makes good what the layers before it have done.

The grid is symmetric, with a step for each output channel or one for all, and the largest weight of
a step stays at the highest level: a quantiser with such a grid finds the same step and the same
integers again.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

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
    wanted: Doubles = np.linalg.solve(own, np.matmul(cross, weights)).astype(np.float64)
    step, levels = grid.step(wanted), grid.levels
    # In steps, so that a level is a whole number.
    integers = _compensated(wanted / step, own, levels)
    largest = np.abs(wanted) >= step * levels * (1 - 1e-9)
    return np.asarray(np.where(largest, np.sign(wanted) * levels, integers) * step)


def plain(weights: Doubles, grid: Grid = PLAIN) -> Doubles:
    """Return weights rounded to the nearest of the grid, for layers with too many inputs."""
    step = grid.step(weights)
    return np.asarray(np.rint(weights / step) * step)


def _compensated(weights: Doubles, own: Doubles, levels: int) -> Doubles:
    """Round input by input, those with the largest moments first where all outputs share them."""
    if weights.ndim > 2:
        return _in_order(weights, own, levels)
    order = np.argsort(-np.diag(own), kind="stable")
    integers = np.empty_like(weights)
    integers[order] = _in_order(weights[order], own[np.ix_(order, order)], levels)
    return integers


def _in_order(weights: Doubles, own: Doubles, levels: int) -> Doubles:
    """Return integers. The upper Cholesky factor of inv(H) has all the conditional inverses."""
    factor = np.swapaxes(np.linalg.cholesky(np.linalg.inv(own)), -1, -2)
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
