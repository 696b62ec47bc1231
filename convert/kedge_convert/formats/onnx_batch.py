"""An open batch for ONNX: several pictures at once, on request."""

from dataclasses import replace
from typing import Any

import numpy as np

from kedge_convert import structure
from kedge_convert.errors import ConversionError
from kedge_convert.formats.canonical import INPUT, OUTPUT
from kedge_convert.formats.exported import Exported
from kedge_convert.source import Source
from kedge_convert.toolkit import require
from kedge_runtime.errors import one_line

BATCH = "batch"  # the symbolic size's name in the file
TRIED = 3  # pictures
# Of the largest logit: other sizes of batch are summed in another order.
TOLERANCE = 1e-4


def opened(exported: Exported, source: Source) -> Exported:
    """Return the model of `source` with any number of pictures in and as many answers out.

    Raises ConversionError when its answers for a batch aren't those for its pictures one by one.
    """
    onnx = require("onnx")
    model = onnx.load_from_string(exported.content)
    graph = model.graph
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for initializer in graph.initializer:
        if initializer.name in shapes:
            _open_first(initializer, onnx.numpy_helper)
    for end in (*graph.input, *graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = BATCH
    del graph.value_info[:]
    content: bytes = model.SerializeToString(deterministic=True)
    if fault := _fault(content, source):
        raise ConversionError(f"{source.name}: no open batch for this network: {fault}")
    return replace(exported, content=content)


def _open_first(initializer: Any, numpy_helper: Any) -> None:
    """Have a Reshape find its first size, which pictures multiply.

    That is -1, or where another size is found already, 0: the first of what it takes.
    """
    sizes = numpy_helper.to_array(initializer).copy()
    if sizes.size and (sizes[0] == 1 or -1 not in sizes):
        sizes[0] = 0 if -1 in sizes[1:] else -1
        initializer.CopyFrom(numpy_helper.from_array(sizes, initializer.name))


def _fault(content: bytes, source: Source) -> str:
    pictures = structure.probes(source, TRIED)
    try:
        session = require("onnxruntime").InferenceSession(content)
        single = [session.run([OUTPUT], {INPUT: picture})[0] for picture in pictures]
        (together,) = session.run([OUTPUT], {INPUT: np.concatenate(pictures)})
    # onnxruntime's errors have no base of their own.
    except Exception as error:
        return one_line(error)
    off = np.abs(together - np.concatenate(single)).max() / np.abs(together).max()
    return "" if off <= TOLERANCE else f"its answers for a batch are off by {off:.2g}"
