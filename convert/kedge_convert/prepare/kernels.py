"""Round a kernel for all calls of its layer, and correct the bias of each call."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kedge_convert.prepare import rounding as windows
from kedge_convert.prepare.batches import Batches
from kedge_convert.prepare.graph import Node
from kedge_convert.prepare.judging import judges, output_error
from kedge_convert.prepare.rounding import Grid, Positions, on_grid_by_inputs, plain
from kedge_runtime.arrays import Floats

POSITIONS = 50  # sampled per image and layer
# Neighbouring positions are alike: so many of a image's count as independent samples.
INDEPENDENT = 10


@dataclass(frozen=True)
class KernelCall:
    """A weighted node with its input in the float network and in the rounded one."""

    node: Node
    floats: Batches
    rounded: Batches

    def parted(self, count: int) -> "tuple[KernelCall, KernelCall]":
        """Return it on the first `count` images, and on the others."""
        values = (self.floats, self.rounded)
        return (
            KernelCall(self.node, *(each.before(count) for each in values)),
            KernelCall(self.node, *(each.after(count) for each in values)),
        )

    def windows(self, at: Positions) -> tuple[Floats, Floats]:
        """Return the windows of both inputs at positions (rounding.py), the float one's first."""
        return (
            windows.sample(self.node, self.floats, at),
            windows.sample(self.node, self.rounded, at),
        )

    def corrected(self, kernel: Floats) -> Node:
        """Return the node with a rounded kernel, the bias shifted by the mean output error.

        Finkelstein et al. 2019, arXiv:1906.03193. The layer is linear: the mean of its outputs is
        its output on the mean image.
        """
        assert self.node.weights is not None
        rounded = replace(self.node, weights=replace(self.node.weights, kernel=kernel))
        pairs = ((self.node, self.floats), (rounded, self.rounded))
        reference, actual = (
            np.asarray(one.linear(value.mean()), np.float64) for one, value in pairs
        )
        error = (reference - actual).mean(axis=tuple(range(reference.ndim - 1)))
        bias = (self.node.weights.bias + error).astype(np.float32)
        return replace(rounded, weights=replace(self.node.weights, kernel=kernel, bias=bias))


def rounded_kernel(calls: Sequence[KernelCall], grid: Grid, rng: np.random.Generator) -> Floats:
    """Return the kernel of all calls on the grid.

    Plain rounding stays where its outputs are closer to the float layer's on the judging images.
    """
    judging = judges(len(calls[0].floats))
    shapes = [(call.node, call.floats.shape) for call in calls]
    at = [windows.positions(node, shape, POSITIONS, rng) for node, shape in shapes]
    judges_of, fitting = zip(*(call.parted(judging) for call in calls), strict=True)
    kernels = _candidates(fitting, grid, at)
    if judging == 0:
        return kernels[0]
    errors = np.zeros(len(kernels))
    for judge, fitted, place in zip(judges_of, fitting, at, strict=True):
        pair = judge.windows(place)
        errors += [output_error(judge.node, fitted.corrected(each), pair) for each in kernels]
    return kernels[int(np.argmin(errors))]


def _candidates(calls: Sequence[KernelCall], grid: Grid, at: Sequence[Positions]) -> list[Floats]:
    """Return two rounded kernels: compensated, and plain."""
    weights = calls[0].node.weights
    assert weights is not None
    pairs = [call.windows(place) for call, place in zip(calls, at, strict=True)]
    floats, rounded = (
        each[0] if len(each) == 1 else np.concatenate(each, axis=-2)
        for each in zip(*pairs, strict=True)
    )
    independent = sum(
        len(call.floats) * min(len(place), INDEPENDENT)
        for call, place in zip(calls, at, strict=True)
    )
    flat = windows.flatten(weights).astype(np.float64)
    compensated = on_grid_by_inputs(flat, (rounded, floats), independent, grid)
    return [windows.restore(each, weights) for each in (compensated, plain(flat, grid))]
