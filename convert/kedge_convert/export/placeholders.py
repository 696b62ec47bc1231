"""Convert a large model without its kernels, and fill them into the file afterwards.

TensorFlow's converter holds each kernel several times. Here it gets one number in the place of a
kernel, another one for each. Where that number fills the kernel of an operator in the file, the
converter does nothing to this kernel but transpose it, and so does `_fill`.
"""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.export import flatbuffer
from kedge_convert.toolkit import require

LEAST = 1 << 18  # numbers of a kernel that is left out: a smaller one is not worth it
KERNEL = 1  # its index among an operator's inputs
# Operator -> the order of the axes of its kernel, from Keras's.
AXES = {"CONV_2D": (3, 0, 1, 2), "FULLY_CONNECTED": (1, 0)}
# Where the numbers lie that are outside of the flatbuffer: `pack` puts them in.
OUTSIDE = b"buffer_location"


@dataclass(frozen=True)
class _KernelBuffer:
    """The buffer of a file that one number fills, and the order of the axes of its kernel."""

    buffer: int
    axes: tuple[int, ...]


def convert(tf: Any, model: Any, most: int) -> Any:
    """Return the float file of a Keras model of batch 1 as a ModelT.

    None where more than `most` weights would go through TensorFlow's converter: those that it
    changes, by folding a normalisation into them, say. Raises what the converter does.
    """
    kernels = [each for each in model.weights if _is_large(each)]
    while kernels:
        file = _without(tf, model, kernels, most)
        if file is None:
            return None
        places = _places(file, kernels)
        if len(places) == len(kernels):
            return _fill(file, kernels, places)
        kernels = [each for index, each in enumerate(kernels) if index in places]
    return None


def _is_large(weight: Any) -> bool:
    kind = (weight.name, weight.dtype)
    return kind == ("kernel", "float32") and math.prod(weight.shape) >= LEAST


def _number(index: int) -> np.float32:
    """Return the number of a kernel, exact in float32."""
    return np.float32((1 + index / 2**16) / 2**10)


def _without(tf: Any, model: Any, kernels: Sequence[Any], most: int) -> Any:
    """Return the file with a number in the place of each kernel, or None."""
    keras = require("keras")

    def answer(image: Any) -> Any:
        pairs = [
            (each, tf.constant(_number(index), shape=each.shape))
            for index, each in enumerate(kernels)
        ]
        with keras.StatelessScope(state_mapping=pairs):
            return model(image, training=False)

    image = model.inputs[0]
    taken = tf.TensorSpec(image.shape, image.dtype, name="input")
    program = tf.function(answer).get_concrete_function(taken)
    if sum(math.prod(each.shape) for each in program.variables) > most:
        return None
    converter = tf.lite.TFLiteConverter.from_concrete_functions([program])
    # Else it packs the whole file twice more, for its notes on itself.
    converter._experimental_use_buffer_offset = True
    return _shortened(flatbuffer.unpack(converter.convert()), len(kernels))


def _shortened(file: Any, count: int) -> Any:
    """Return a file with one number of each placeholder, in arrays of its own.

    Those of a ModelT, shapes and inputs too, are views of the file's bytes, and would hold them.
    """
    numbers = {_number(index) for index in range(count)}
    for buffer in filter(lambda each: each.data is not None, file.buffers):
        one = _one_number(buffer.data)
        buffer.data = np.array([one]) if one in numbers else buffer.data
    file.metadata = [each for each in file.metadata or () if each.name != OUTSIDE]
    return deepcopy(file)


def _one_number(data: NDArray[np.uint8]) -> np.float32 | None:
    """Return the number that fills a large buffer, if one does."""
    if len(data) < 4 * LEAST:
        return None
    numbers = data.view(np.float32)
    return np.float32(numbers[0]) if (numbers == numbers[0]).all() else None


def _places(file: Any, kernels: Sequence[Any]) -> dict[int, _KernelBuffer]:
    """Return the buffer of each kernel that only one operator reads, and as its kernel."""
    numbers = {_number(index): index for index in range(len(kernels))}
    uses: dict[int, list[_KernelBuffer | None]] = {}
    for name, operator in flatbuffer.operators(file):
        for position, tensor in enumerate(operator.inputs):
            buffer = file.subgraphs[0].tensors[tensor].buffer
            data = file.buffers[buffer].data
            if data is None or data.dtype != np.float32:
                continue
            index = numbers[data[0]]
            shape = flatbuffer.shape(file.subgraphs[0].tensors[tensor])
            axes = AXES.get(name, ()) if position == KERNEL else ()
            moved = _transposed(kernels[index].shape, axes) == shape
            uses.setdefault(index, []).append(_KernelBuffer(buffer, axes) if moved else None)
    found = {index: each[0] for index, each in uses.items() if len(each) == 1}
    return {index: place for index, place in found.items() if place is not None}


def _transposed(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in axes) if len(shape) == len(axes) else ()


def _fill(file: Any, kernels: Sequence[Any], places: Mapping[int, _KernelBuffer]) -> Any:
    """Put the kernels into a file, in place."""
    for index, place in places.items():
        kernel = np.asarray(kernels[index]).transpose(place.axes)
        file.buffers[place.buffer].data = np.ascontiguousarray(kernel).reshape(-1).view(np.uint8)
    return flatbuffer.share(file)
