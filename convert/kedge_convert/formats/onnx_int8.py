"""ONNX's static int8, through onnxruntime's quantiser."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kedge_convert.photos import Tick, tensors
from kedge_convert.scheme import Scheme
from kedge_convert.source import Source
from kedge_convert.toolkit import require


def stock(
    source: Source, floats: Path, calibration: Sequence[Path], tick: Tick, scheme: Scheme
) -> bytes:
    """Quantise statically: QDQ, int8 weights per channel, int8 activations by min and max."""
    quantization = require("onnxruntime.quantization")
    quantised = floats.with_suffix(".int8.onnx")
    quantization.quantize_static(
        str(folded(floats)),
        str(quantised),
        _reader(quantization, source, calibration, tick),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        reduce_range=scheme.reduce_range,
        weight_type=quantization.QuantType.QInt8,
        activation_type=quantization.QuantType.QInt8,
    )
    return quantised.read_bytes()


def folded(floats: Path) -> Path:
    """Write a float model beside itself as onnxruntime wants it before it quantises."""
    shapes = require("onnxruntime.quantization.shape_inference")
    path = floats.with_suffix(".folded.onnx")
    shapes.quant_pre_process(str(floats), str(path), skip_symbolic_shape=True)
    return path


def _reader(quantization: Any, source: Source, calibration: Sequence[Path], tick: Tick) -> Any:
    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._tensors = tensors(calibration, source.input)

        def get_next(self) -> dict[str, Any] | None:
            tick()
            tensor = next(self._tensors, None)
            return None if tensor is None else {"input": tensor}

    return Reader()
