"""Static int8 of TFLite with chosen ranges, through TensorFlow's quantiser."""

from collections.abc import Container, Iterable

import numpy as np
from numpy.typing import NDArray

from kedge_convert.export import flatbuffer, tflite_static
from kedge_convert.export.exported import Scheme
from kedge_convert.export.tflite_converter import float32 as floats
from kedge_convert.export.tflite_static import quantise
from kedge_convert.prepare.preparation import Grids
from kedge_convert.quantise.ranges import See, StaticOperator
from kedge_convert.source import Source

__all__ = ["floats", "grids", "observe", "operators", "quantise", "tensors"]


def tensors(source: Source, content: bytes) -> dict[str, str]:
    """Return each activation's tensor in the float program, which is this file itself."""
    names = tflite_static.activations(flatbuffer.unpack(content)).values()
    return {name: name for name in names}


def observe(
    content: bytes, images: Iterable[NDArray[np.float32]], see: See, known: Container[str] = ()
) -> None:
    """Call `see` with the name and value of every activation that isn't known, image by image."""
    for name, value in tflite_static.observed(content, images):
        if name not in known:
            see(name, value)


def grids(scheme: Scheme) -> Grids:
    """Return the grids of prepared weights."""
    return Grids(per_channel_dense=scheme.per_channel_dense, per_channel=scheme.per_channel)


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
