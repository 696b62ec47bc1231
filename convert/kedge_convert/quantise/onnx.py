"""Static int8 of ONNX with chosen ranges, through onnxruntime's quantiser."""

from collections.abc import Container, Iterable

import numpy as np
from numpy.typing import NDArray

from kedge_convert.export import onnx_routes, onnx_static
from kedge_convert.export.exported import Scheme
from kedge_convert.export.onnx_graph import INPUT
from kedge_convert.export.onnx_static import quantise
from kedge_convert.prepare.preparation import Grids
from kedge_convert.prepare.rounding import LEVELS
from kedge_convert.quantise.ranges import See, StaticOperator
from kedge_convert.source import Source
from kedge_convert.toolkit import require

__all__ = ["floats", "grids", "observe", "operators", "quantise", "tensors"]

REDUCED = 64  # onnxruntime.quantization.quant_utils.ONNX_INT_TYPE_REDUCED_RANGE


def floats(source: Source) -> bytes:
    """Return the float model as onnxruntime wants it before it quantises."""
    return onnx_static.folded(onnx_routes.float32(source))


def tensors(source: Source, content: bytes) -> dict[str, str]:
    """Return the tensors of the float program by the activations that have their ranges."""
    return onnx_static.sources(content, onnx_routes.names(source))


def observe(
    content: bytes, images: Iterable[NDArray[np.float32]], see: See, known: Container[str] = ()
) -> None:
    """Call `see` with the name and value of every activation that isn't known."""
    for name, value in onnx_static.observed(content, images, known):
        see(name, value)


def grids(scheme: Scheme) -> Grids:
    """Return the grids of prepared weights; dense layers have a step per output if others have."""
    levels = REDUCED if scheme.reduce_range else LEVELS
    return Grids(levels, per_channel=scheme.per_channel)


def operators(content: bytes) -> list[StaticOperator]:
    """Return the operators of a float model in execution order."""
    graph = require("onnx").load_from_string(content).graph
    names = frozenset((INPUT, *onnx_static.activations(graph)))
    return [
        StaticOperator(node.name, names.intersection((*node.input, *node.output)))
        for node in graph.node
    ]
