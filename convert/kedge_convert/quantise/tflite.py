"""Static int8 of TFLite with chosen ranges, through TensorFlow's quantiser."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from kedge_convert.export import flatbuffer, tflite_static
from kedge_convert.export.exported import Scheme
from kedge_convert.export.tflite_converter import float32 as floats
from kedge_convert.export.tflite_static import quantise
from kedge_convert.prepare.preparation import Grids
from kedge_convert.quantise.ranges import See, StaticOperator

__all__ = ["floats", "grids", "observe", "operators", "quantise"]


def observe(content: bytes, images: Iterable[NDArray[np.float32]], see: See) -> None:
    """Call `see` with the name and value of every activation, image by image."""
    for name, value in tflite_static.observed(content, images):
        see(name, value)


def grids(scheme: Scheme) -> Grids:
    """Return the grids of prepared weights."""
    return Grids(per_channel_dense=scheme.per_channel_dense)


def operators(content: bytes) -> list[StaticOperator]:
    """Return the operators of a float file in execution order; each is named by its output."""
    model = flatbuffer.unpack(content)
    names, graph = tflite_static.activations(model), model.subgraphs[0]
    return [
        StaticOperator(
            graph.tensors[each.outputs[0]].name.decode(),
            frozenset(names[i] for i in (*each.inputs, *each.outputs) if i in names),
        )
        for each in graph.operators
    ]
