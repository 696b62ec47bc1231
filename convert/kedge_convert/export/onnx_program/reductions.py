"""Operators along axes: sums, means, softmax, norms."""

import numpy as np

from kedge_convert.export.onnx_program.activations import with_fused
from kedge_convert.export.onnx_program.calls import Made, OperatorCall, Rule
from kedge_convert.export.onnx_program.layout import FIRST, IMAGE, LAST, Layout, axis_in

SPATIAL = {1, 2}  # axes in TFLite's order


def _reduction(kind: str) -> Rule:
    def rule(call: OperatorCall) -> Made:
        axes = {int(axis) % len(call.shape()) for axis in np.atleast_1d(call.constant(1))}
        kept = bool(call.options.keepDims)
        layout = _layout(call, axes, kept=kept)
        if kind == "ReduceMean" and axes == SPATIAL and len(call.shape()) == IMAGE:
            return _pooled(call, kept=kept)
        value, places = call.value(0, layout), sorted(axis_in(layout, axis) for axis in axes)
        result = FIRST if layout is FIRST and kept else LAST
        # At opset 17 the sum alone takes its axes as an operand.
        if kind == "ReduceSum":
            return Made(call.node(kind, value, call.integers(places), keepdims=int(kept)), result)
        return Made(call.node(kind, value, axes=places, keepdims=int(kept)), result)

    return rule


def _layout(call: OperatorCall, axes: set[int], *, kept: bool) -> Layout:
    """Return FIRST where that is there, and what is left of the axes has the order of LAST."""
    if len(call.shape()) != IMAGE or not call.is_in(FIRST):
        return LAST
    in_order = 3 in axes or axes >= SPATIAL
    return FIRST if kept or in_order else LAST


def _pooled(call: OperatorCall, *, kept: bool) -> Made:
    made = call.node("GlobalAveragePool", call.value(0, FIRST))
    return Made(made, FIRST) if kept else Made(call.node("Flatten", made))


def _along_channels(kind: str) -> Rule:
    def rule(call: OperatorCall) -> Made:
        layout = call.layout()
        value = call.value(0, layout)
        beta = getattr(call.options, "beta", 1.0)
        if beta != 1:
            value = call.node("Mul", value, call.number(beta))
        (axis,) = call.axes(-1, layout)
        return Made(call.node(kind, value, axis=axis), layout)

    return rule


LEAST_NORM = 1e-6  # lite/kernels/l2norm.cc


def _l2_normalised(call: OperatorCall) -> Made:
    layout = call.layout()
    value, axes = call.value(0, layout), call.axes(-1, layout)
    norm = call.node("ReduceL2", value, axes=axes, keepdims=1)
    norm = call.node("Max", norm, call.number(LEAST_NORM))
    return with_fused(call, Made(call.node("Div", value, norm), layout))


RULES: dict[str, Rule] = {
    "L2_NORMALIZATION": _l2_normalised,
    "LOG_SOFTMAX": _along_channels("LogSoftmax"),
    "MEAN": _reduction("ReduceMean"),
    "REDUCE_MAX": _reduction("ReduceMax"),
    "REDUCE_MIN": _reduction("ReduceMin"),
    "REDUCE_PROD": _reduction("ReduceProd"),
    "SOFTMAX": _along_channels("Softmax"),
    "SUM": _reduction("ReduceSum"),
}
