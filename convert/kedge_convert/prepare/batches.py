"""A tensor's value on many images, in batches: what a node has used can go batch by batch."""

from collections.abc import Container, Iterable
from typing import Any

import numpy as np

from kedge_convert.prepare.graph import GraphTensor, Node
from kedge_convert.prepare.running import CHUNK, held, keeps_scale
from kedge_convert.prepare.steps import ends_of
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats


class Batches:
    """A value, float32 [n, ...], as arrays of up to CHUNK images each.

    `tensors`: the same, mostly as the backend's own: passing numpy's on costs two copies.
    """

    def __init__(self, tensors: Iterable[Any]) -> None:
        """Take arrays or tensors."""
        self.tensors = list(tensors)

    @property
    def arrays(self) -> list[Floats]:
        """Views of the tensors."""
        return [np.asarray(each, np.float32) for each in self.tensors]

    @classmethod
    def of(cls, value: Floats) -> "Batches":
        """Return a value in batches, which are views of it."""
        return cls(value[at : at + CHUNK] for at in range(0, len(value), CHUNK))

    def __len__(self) -> int:
        """Return the number of images."""
        return sum(len(each) for each in self.arrays)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole value."""
        return (len(self), *self.arrays[0].shape[1:])

    @property
    def nbytes(self) -> int:
        """How many bytes the value takes."""
        return sum(array.nbytes for array in self.arrays)

    def before(self, count: int) -> "Batches":
        """Return the first `count` images, as views."""
        return Batches(each for each in self._cut(0, count) if len(each))

    def after(self, count: int) -> "Batches":
        """Return all but the first `count` images, as views."""
        return Batches(each for each in self._cut(count, len(self)) if len(each))

    def _cut(self, first: int, end: int) -> Iterable[Floats]:
        start = 0
        for array in self.arrays:
            yield array[max(first - start, 0) : max(end - start, 0)]
            start += len(array)

    def at(self, rows: Any, columns: Any) -> Floats:
        """Return the pixels at positions, [n, positions, channels]."""
        return np.concatenate([array[:, rows, columns] for array in self.arrays])

    def rows(self) -> Floats:
        """Return the whole value as rows, [..., channels]."""
        return np.concatenate(self.arrays).reshape(-1, self.shape[-1])

    def mean(self) -> Floats:
        """Return the mean image, [1, ...], summed in the order of the images."""
        total = self.arrays[0][:1].copy()
        for index, array in enumerate(self.arrays):
            for image in array[1:] if index == 0 else array:
                total += image
        return np.asarray(total / np.float32(len(self)), np.float32)


Batched = dict[GraphTensor, Batches]


def run(node: Node, values: Batched, spent: Container[GraphTensor] = ()) -> Batches:
    """Return a node's value on batches; what it takes of `spent` tensors is freed meanwhile."""
    freed = [values[tensor].tensors for tensor in set(node.inputs) if tensor in spent]
    tensor_of, made = require("keras").ops.convert_to_tensor, []
    for index in range(len(values[node.inputs[0]].tensors)):
        chunk = {each: tensor_of(values[each].tensors[index]) for each in set(node.inputs)}
        for tensors in freed:
            tensors[index] = np.empty((0, *tensors[index].shape[1:]), np.float32)
        made.append(tensor_of(node.run(chunk.__getitem__), "float32"))
        del chunk
    return Batches(made)


def quantised(node: Node, value: Batches) -> Batches:
    """Return the value as an int8 tensor would hold it, as of `running.quantised`; in place."""
    if not keeps_scale(node):
        ends = ends_of(*value.arrays)
        for index, tensor in enumerate(value.tensors):
            value.tensors[index] = held(np.asarray(tensor), ends)
    return value
