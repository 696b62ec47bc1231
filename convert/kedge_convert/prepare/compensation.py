"""Round the inputs of a layer one by one; those that are left make each rounding error good."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Doubles

BLOCK = 64


@dataclass(frozen=True)
class OrderedInputs:
    """A layer's inputs in the order in which they are rounded, with the inverse of their moments.

    `order`: [n], those with the largest moments first where all outputs share them. `factor`: upper
    triangular, [..., n, n]; its square U' U is the inverse, and it has all conditional inverses.
    """

    order: NDArray[np.intp]
    factor: Doubles

    @classmethod
    def of(cls, own: Doubles) -> "OrderedInputs":
        """Return the inputs of second moments, [..., n, n]."""
        order = np.arange(own.shape[-1])
        if own.ndim == 2:
            order = np.argsort(-np.diag(own), kind="stable")
        return cls(order, _inverse_factor(own[..., order[:, None], order]))

    def solved(self, sums: Doubles) -> Doubles:
        """Return the inverse of the moments times `sums`, [..., n, outputs]."""
        half = np.matmul(self.factor, sums[..., self.order, :])
        return self._back(np.matmul(np.swapaxes(self.factor, -1, -2), half))

    def compensated(self, weights: Doubles, levels: int) -> Doubles:
        """Return weights, [..., n, outputs], in whole steps of -`levels` to `levels`."""
        return self._back(_compensated(weights[..., self.order, :], self.factor, levels))

    def _back(self, values: Doubles) -> Doubles:
        """Return values in the inputs' own order."""
        result = np.empty_like(values)
        result[..., self.order, :] = values
        return result


def _inverse_factor(own: Doubles) -> Doubles:
    """Return the upper factor U of U' U = inv(own).

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
