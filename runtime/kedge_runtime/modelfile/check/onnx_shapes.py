"""Compute the output shapes of ONNX operators from their inputs and attributes.

Each rule takes an OnnxStep and returns the shape of each output. It raises UnsoundError for inputs
that may crash an engine. Specification: onnx.ai/onnx/operators.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kedge_runtime.arrays import Indices
from kedge_runtime.modelfile.check.onnx_graph import OnnxNode, OnnxValue
from kedge_runtime.modelfile.check.tflite_shapes import Shape, UnsoundError, axis_of

Shapes = Sequence[Shape]


@dataclass(slots=True)
class OnnxStep:
    """An operator with its input values; an absent one is None."""

    node: OnnxNode
    inputs: list[OnnxValue | None]
    opset: int = 0

    def value(self, place: int = 0) -> OnnxValue:
        """Return an input that must be present."""
        found = self.inputs[place] if place < len(self.inputs) else None
        if found is None:
            raise UnsoundError(f"operand {place} is missing")
        return found

    def shape(self, place: int = 0) -> Shape:
        """Return the shape of an input that must be present."""
        return self.value(place).shape

    def given(self, place: int) -> OnnxValue | None:
        """Return an input, None where it is absent."""
        return self.inputs[place] if place < len(self.inputs) else None

    def list(self, place: int) -> Shape:
        """Return the numbers of a list that must be known."""
        integers = self.value(place).integers
        if integers is None:
            raise UnsoundError(f"operand {place} is computed, so its sizes have no bound")
        return tuple(int(number) for number in integers.ravel())

    def attribute(self, name: str, default: int = 0) -> int:
        """Return an integer attribute."""
        found = self.node.integers.get(name, (default,))
        if len(found) != 1:
            raise UnsoundError(f"its {name} is {found}")
        return found[0]

    def lists(self, name: str, place: int) -> Shape | None:
        """Return a list from an attribute, or in later versions from an input; None without."""
        if name in self.node.integers:
            return self.node.integers[name]
        return None if self.given(place) is None else self.list(place)


def axes_of(values: Sequence[int], rank: int) -> set[int]:
    """Return axes counted from the front. Raises UnsoundError for missing or repeated ones."""
    found = {axis_of(value, rank) for value in values[: rank + 1]}
    if len(found) != len(values):
        raise UnsoundError(f"its axes are {tuple(values)[:8]}")
    return found


def stretched(one: Shape, other: Shape) -> Shape:
    """Return the shape to which two shapes broadcast."""
    if len(one) < len(other):
        one, other = other, one
    padded = (1,) * (len(one) - len(other)) + other
    if any(a != b and 1 not in (a, b) for a, b in zip(one, padded, strict=True)):
        raise UnsoundError(f"the shapes {one} and {other} don't go together")
    return tuple(b if a == 1 else a for a, b in zip(one, padded, strict=True))


def same(step: OnnxStep) -> Shapes:
    """Keep the shape of the first input."""
    return [step.shape()] * len(step.node.outputs)


def along(step: OnnxStep) -> Shapes:
    """Keep the shape of the first input, which must have the named axis."""
    shape = step.shape()
    if shape or "axis" in step.node.integers:
        axis_of(step.attribute("axis", -1), len(shape))
    return same(step)


def broadcast(step: OnnxStep) -> Shapes:
    """Broadcast all inputs to each other."""
    result: Shape = ()
    for place in range(len(step.inputs)):
        result = stretched(result, step.shape(place))
    return [result]


def one_number(step: OnnxStep) -> Shapes:
    """Keep the first shape; each other input must be one number."""
    for value in step.inputs[1:]:
        if value is not None and value.elements != 1:
            raise UnsoundError(f"it takes {value.elements} numbers where one belongs")
    return same(step)


def fits(step: OnnxStep) -> Shapes:
    """Keep the first shape, to which the second must broadcast."""
    if stretched(step.shape(), step.shape(1)) != step.shape():
        raise UnsoundError(f"the shapes {step.shape()} and {step.shape(1)} don't go together")
    return [step.shape()]


def quantised(step: OnnxStep) -> Shapes:
    """Keep the first shape; scales are one for all, or one per item of an axis."""
    shape, scale, zero = step.shape(), step.value(1), step.given(2)
    if not scale.constant or (zero is not None and zero.elements != scale.elements):
        raise UnsoundError("its scales are no constants, each with a zero point")
    if scale.elements != 1:
        axis = axis_of(step.attribute("axis", 1), len(shape))
        if scale.elements != shape[axis]:
            raise UnsoundError(f"it has {scale.elements} scales for {shape[axis]} channels")
    return [shape]


def channels(step: OnnxStep) -> Shapes:
    """Keep the first shape; each other input has a number per channel."""
    shape = step.shape()
    if len(shape) < 2 or any(
        step.shape(place) != (shape[1],) or not step.value(place).constant
        for place in range(1, len(step.inputs))
    ):
        raise UnsoundError("its numbers don't fit the channels")
    return same(step)


def layer(step: OnnxStep) -> Shapes:
    """Keep the first shape; scale and bias must fit the normalised axes."""
    shape = step.shape()
    axis = axis_of(step.attribute("axis", -1), len(shape))
    for place in range(1, len(step.inputs)):
        if stretched(shape[axis:], step.shape(place)) != shape[axis:]:
            raise UnsoundError("its numbers don't fit what it normalises")
    rest = shape[:axis] + (1,) * (len(shape) - axis)
    return [shape, rest, rest][: len(step.node.outputs)]


def matmul(step: OnnxStep, one: int = 0, other: int = 1) -> Shapes:
    """Multiply [..., m, k] by [..., k, n]."""
    a, b = step.shape(one), step.shape(other)
    if not a or not b:
        raise UnsoundError("it multiplies a scalar")
    left, right = a if len(a) > 1 else (1, *a), b if len(b) > 1 else (*b, 1)
    if left[-1] != right[-2]:
        raise UnsoundError(f"the shapes {a} and {b} don't multiply")
    sides = (left[-2],) * (len(a) > 1) + (right[-1],) * (len(b) > 1)
    return [(*stretched(left[:-2], right[:-2]), *sides)]


def qlinear_matmul(step: OnnxStep) -> Shapes:
    """Multiply as `matmul`; a scale and a zero point follow each input."""
    return matmul(step, 0, 3)


def gemm(step: OnnxStep) -> Shapes:
    """Multiply [m, k] by [k, n], each perhaps transposed, and add a shape that broadcasts."""
    a, b = step.shape(), step.shape(1)
    if (len(a), len(b)) != (2, 2):
        raise UnsoundError(f"it multiplies {a} and {b}")
    (m, k), (depth, n) = (
        a[:: -1 if step.attribute("transA") else 1],
        b[:: -1 if step.attribute("transB") else 1],
    )
    more = step.given(2)
    if k != depth or (more is not None and stretched((m, n), more.shape) != (m, n)):
        raise UnsoundError(f"the shapes {a} and {b} don't multiply, or what is added doesn't fit")
    return [(m, n)]


def reduce(step: OnnxStep) -> Shapes:
    """Remove the named axes (default: all), or set them to 1."""
    shape = step.shape()
    named = step.lists("axes", 1)
    if not named and step.attribute("noop_with_empty_axes"):
        return [shape]
    axes = axes_of(named, len(shape)) if named else set(range(len(shape)))
    keep = step.attribute("keepdims", 1)
    return [tuple(1 if i in axes else s for i, s in enumerate(shape) if keep or i not in axes)]


def arg(step: OnnxStep) -> Shapes:
    """Remove one axis, or set it to 1."""
    shape = step.shape()
    axis = axis_of(step.attribute("axis"), len(shape))
    middle = (1,) if step.attribute("keepdims", 1) else ()
    return [(*shape[:axis], *middle, *shape[axis + 1 :])]


Rule = Callable[[OnnxStep], Shapes]


def integers(numbers: Sequence[int]) -> Indices:
    """Return a list as an array."""
    return np.array(numbers, np.int64)


def qlinear_pair(step: OnnxStep) -> Shapes:
    """Broadcast two inputs; a scale and a zero point follow each."""
    return [stretched(step.shape(), step.shape(3))]


def dynamic(step: OnnxStep) -> Shapes:
    """Return the first shape, and those of its scale and zero point."""
    return [step.shape(), (), ()]
