"""Keras to ONNX through the float TFLite file, and onnxruntime's static quantisation of that.

The detour gives the cleaner graph: batch norms are folded and few transposes are left. Where
tf2onnx can't read the TFLite file (GELU, say), it reads the Keras model itself.
"""

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kedge_convert.errors import ConversionError, one_line
from kedge_convert.formats import tflite
from kedge_convert.photos import Tick, tensors
from kedge_convert.source import Source
from kedge_convert.toolkit import quiet, require
from kedge_runtime.contract import Precision

OPSET = 17
INPUT, OUTPUT = "input", "logits"


def export(source: Source, precision: Precision, calibration: Sequence[Path], tick: Tick) -> bytes:
    """Return the serialised ModelProto of `source`, input `input` and output `logits`."""
    with quiet(), _logs_off(), tempfile.TemporaryDirectory(prefix="kedge-") as folder:
        floats = Path(folder) / "float32.onnx"
        floats.write_bytes(_float_model(source, Path(folder)))
        return RECIPES[precision](source, floats, calibration, tick)


def _float_model(source: Source, folder: Path) -> bytes:
    """Return the float model of the first route that gives a valid one."""
    reasons = []
    for name, route in ROUTES.items():
        try:
            model = route(source, folder)
            _name_ends(model)
            require("onnx").checker.check_model(model, full_check=True)
            content: bytes = model.SerializeToString()
        # tf2onnx raises whatever its parts raise; the next route may do, or all are named.
        except Exception as error:
            reasons.append(f"{name}: {one_line(error)}")
        else:
            return content
    raise ConversionError(f"{source.name}: no route to ONNX: {'; '.join(reasons)}")


def _through_tflite(source: Source, folder: Path) -> Any:
    path = folder / "float32.tflite"
    path.write_bytes(tflite.export(source, "float32", (), lambda: None))
    return require("tf2onnx").convert.from_tflite(str(path), opset=OPSET)[0]


def _through_graph(source: Source, folder: Path) -> Any:
    return require("tf2onnx").convert.from_keras(tflite.single(source), opset=OPSET)[0]


ROUTES: dict[str, Callable[[Source, Path], Any]] = {
    "through TFLite": _through_tflite,
    "through the graph": _through_graph,
}


def _name_ends(model: Any) -> None:
    """Give the graph's input and output their fixed names; each route has its own."""
    graph = model.graph
    (taken,), (given,) = graph.input, graph.output
    names = {taken.name: INPUT, given.name: OUTPUT}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    taken.name, given.name = INPUT, OUTPUT


def _float32(source: Source, floats: Path, calibration: Sequence[Path], tick: Tick) -> bytes:
    return floats.read_bytes()


def _int8(source: Source, floats: Path, calibration: Sequence[Path], tick: Tick) -> bytes:
    """Quantise statically: QDQ, int8 weights per channel, int8 activations by min and max."""
    quantization = require("onnxruntime.quantization")
    shapes = require("onnxruntime.quantization.shape_inference")
    folded, quantised = floats.with_suffix(".folded.onnx"), floats.with_suffix(".int8.onnx")
    shapes.quant_pre_process(str(floats), str(folded), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(folded),
        str(quantised),
        _reader(quantization, source, calibration, tick),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
        activation_type=quantization.QuantType.QInt8,
    )
    return quantised.read_bytes()


RECIPES: dict[Precision, Callable[[Source, Path, Sequence[Path], Tick], bytes]] = {
    "float32": _float32,
    "int8": _int8,
}


def _reader(quantization: Any, source: Source, calibration: Sequence[Path], tick: Tick) -> Any:
    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._tensors = tensors(calibration, source.input)

        def get_next(self) -> dict[str, Any] | None:
            tick()
            tensor = next(self._tensors, None)
            return None if tensor is None else {INPUT: tensor}

    return Reader()


@contextlib.contextmanager
def _logs_off() -> Iterator[None]:
    """Silence the toolkits' loggers, which hold handlers of their own."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
