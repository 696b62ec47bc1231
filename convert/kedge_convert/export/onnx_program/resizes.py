"""Resizes, by how TFLite counts pixels (lite/kernels/internal/reference/resize_*.h)."""

from collections.abc import Sequence

import numpy as np

from kedge_convert.export.onnx_program.calls import Made, OperatorCall, Rule
from kedge_convert.export.onnx_program.layout import FIRST


def _resize(mode: str) -> Rule:
    def rule(call: OperatorCall) -> Made:
        sizes, wanted = call.shape()[1:3], call.shapes[0][1:3]
        whole = all(new % old == 0 for old, new in zip(sizes, wanted, strict=True))
        made = call.node(
            "Resize",
            call.value(0, FIRST),
            "",
            *_target(call, sizes, wanted),
            mode=mode,
            coordinate_transformation_mode=_counting(call, nearest=mode == "nearest", whole=whole),
            **_rounding(call, mode, whole=whole),
        )
        return Made(made, FIRST)

    return rule


def _target(call: OperatorCall, sizes: Sequence[int], wanted: Sequence[int]) -> tuple[str, ...]:
    """Return the scales, which leave the batch open, or the sizes where rounding needs them."""
    scales = np.array(wanted, np.float32) / np.array(sizes, np.float32)
    if (np.floor(scales * np.array(sizes, np.float32)) == wanted).all():
        return (call.graph.numbers([1, 1, *scales.tolist()], np.float32),)
    batch, *_, channels = call.shapes[0]
    return ("", call.integers([batch, channels, *wanted]))


def _counting(call: OperatorCall, *, nearest: bool, whole: bool) -> str:
    if call.options.alignCorners:
        return "align_corners"
    # Where each pixel is repeated, both ways to count are the same; engines know this one best.
    return (
        "half_pixel" if call.options.halfPixelCenters and not (nearest and whole) else "asymmetric"
    )


def _rounding(call: OperatorCall, mode: str, *, whole: bool) -> dict[str, str]:
    """Return how a place between pixels is rounded.

    TFLite rounds aligned corners, and takes floor((x + .5) scale) of half pixels: ONNX's x lies .5
    lower.
    """
    if mode != "nearest":
        return {}
    rounds = call.options.alignCorners or (call.options.halfPixelCenters and not whole)
    return {"nearest_mode": "round_prefer_ceil" if rounds else "floor"}


RULES: dict[str, Rule] = {
    "RESIZE_BILINEAR": _resize("linear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("nearest"),
}
