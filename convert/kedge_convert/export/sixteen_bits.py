"""int16 activations and int8 weights of a float TFLite file: TensorFlow's older quantiser.

It alone knows 16 bits. It writes in place, so constants must not share a buffer. Zeros alone (dead
channels without a bias, slopes that were not trained) get a scale of 0 from it, which no engine
needs to take.
"""

from typing import Any

import numpy as np

from kedge_convert.export import flatbuffer
from kedge_convert.export.exported import Ranges
from kedge_convert.export.tflite_static import ranged
from kedge_convert.toolkit import ConversionError, require
from kedge_runtime.errors import one_line
from kedge_runtime.output import quiet

SMALLEST = 2.0**-20  # the scale of zeros; a larger one would coarsen what they are added to


def quantise_16(content: bytes, ranges: Ranges, io: str) -> bytes:
    """Return the file of int16 activations and int8 weights; `io`: the dtype of its I/O.

    It takes ranges from the tensors where its calibrator has seen no image. Operators without
    16-bit kernels stay float. Raises ConversionError.
    """
    calibrator = require("tensorflow.lite.python.optimize.calibrator")
    model = ranged(content, ranges)
    _own_buffers(model)
    graph = model.subgraphs[0]
    ends, inner, sums = (np.dtype(name).num for name in (io, "int16", "int64"))
    try:
        with quiet():
            # It has to live as long as its quantiser, which reads the content that it holds.
            holder = calibrator.Calibrator(flatbuffer.pack(model))
            quantiser = holder._calibrator
            quantiser.Prepare(
                [list(map(int, graph.tensors[index].shape)) for index in graph.inputs]
            )
            result: bytes = quantiser.QuantizeModel(ends, ends, True, inner, sums, False, False)
    # The wrapper raises RuntimeError and others.
    except Exception as error:
        raise ConversionError(f"TensorFlow can't quantise the file: {one_line(error)}") from error
    return _scaled(result)


def _own_buffers(model: Any) -> None:
    """Give each constant a buffer of its own: the converter stores equal ones once."""
    seen = set()
    for tensor in model.subgraphs[0].tensors:
        buffer = model.buffers[tensor.buffer]
        if buffer.data is None or not len(buffer.data):
            continue
        if tensor.buffer in seen:
            copy = flatbuffer.schema().BufferT()
            copy.data = buffer.data
            tensor.buffer = len(model.buffers)
            model.buffers.append(copy)
        seen.add(tensor.buffer)


def _scaled(content: bytes) -> bytes:
    """Return the file with a scale for zeros alone; the very same one where all have a scale."""
    model = flatbuffer.unpack(content)
    zeros = [
        tensor.quantization
        for tensor in model.subgraphs[0].tensors
        if tensor.quantization is not None
        and tensor.quantization.scale is not None
        and not np.all(tensor.quantization.scale)
    ]
    for one in zeros:
        one.scale = np.where(np.equal(one.scale, 0), SMALLEST, one.scale).astype(np.float32)
    return flatbuffer.pack(model) if zeros else content
