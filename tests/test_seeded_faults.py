"""No fault of a toolkit, of a file or of what is sealed into it leaves with exit code 0.

Every fault goes through the whole of `kedge convert demo`; only the worker process is left out, so
that the fault can be put where it arises.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import numpy as np
import pytest

import seeded_faults
from kedge_convert import contract_builder, pipeline
from kedge_convert.export import onnx, onnx_routes, tflite, tflite_converter, tflite_static
from kedge_convert.export.exported import ExportOptions
from kedge_convert.export.onnx_program.writing import Written
from kedge_convert.job import Job, Outcome
from kedge_convert.load.request import SourceRequest
from kedge_convert.rewrite import lowering
from kedge_convert.source import Source, load_source
from kedge_convert.worker import supervisor
from kedge_convert.worker.progress import Progress
from seeded_faults import Fault

Run = Callable[..., tuple[int, str, str]]
Convert = Callable[[str], tuple[int, str]]
Inject = Callable[[pytest.MonkeyPatch, Fault, "Genuine"], None]


class Genuine(NamedTuple):
    """What the toolkits give for the demo: files by target, ModelProtos by route."""

    source: Source
    files: dict[str, bytes]
    routes: dict[str, bytes]


@pytest.fixture(scope="module")
def genuine(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Genuine:
    """Let the toolkits work once: every fault below is put into the same results."""
    pytest.importorskip("tf2onnx", reason="the converter needs keras-kedge[convert]")
    source = load_source(SourceRequest("demo"))
    paths = sorted(pictures.iterdir())[:20]
    made = {
        name: tflite.export(source, name, ExportOptions(tuple(paths)))
        for name in ("float32", "int8")
    }
    folder = tmp_path_factory.mktemp("routes")
    protos = {name: route(source, folder) for name, route in onnx_routes.ROUTES.items()}
    return Genuine(
        source,
        {f"tflite:{name}": exported.content for name, exported in made.items()},
        {name: written.model.SerializeToString() for name, written in protos.items()},
    )


@pytest.fixture
def convert(
    genuine: Genuine, kedge: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Convert:
    """Return `kedge convert demo --to TARGET` in this process: target -> (exit code, words)."""
    import keras

    def load(request: SourceRequest) -> Source:
        # A model of its own for each run: the exporters remember what they made of one.
        loaded = genuine.source.model
        return replace(genuine.source, model=keras.Model(loaded.inputs, loaded.outputs))

    def here(job: Job, progress: Progress, bounds: object) -> list[Outcome]:
        return list(pipeline.convert(job, progress))

    monkeypatch.setattr(pipeline, "load_source", load)
    monkeypatch.setattr(supervisor, "convert", here)
    words = "--effort fast --calibrate-count 20 --check-count 20 --json"

    def run(target: str) -> tuple[int, str]:
        options = [*words.split(), "--calibrate", pictures, "--out", tmp_path / "out"]
        code, out, err = kedge("convert", "demo", "--to", target, *options)
        return code, out + err

    return run


def into_weights(monkeypatch: pytest.MonkeyPatch, fault: Fault, genuine: Genuine) -> None:
    import tensorflow as tf

    real, program, models = (
        tf.lite.TFLiteConverter.from_concrete_functions,
        tflite_converter.program,
        [],
    )

    def seen(tf: Any, model: Any) -> Any:
        models.append(model)
        return program(tf, model)

    def spoilt(functions: Any) -> Any:
        model = models[-1]
        before = {weight.path: np.array(weight) for weight in model.weights}
        after = {path: value.copy() for path, value in before.items()}
        fault.change(after)
        return _Converter(real(functions), model, before, after)

    monkeypatch.setattr(tflite_converter, "program", seen)
    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_concrete_functions", spoilt)


def into_lowerings(monkeypatch: pytest.MonkeyPatch, fault: Fault, genuine: Genuine) -> None:
    def rewrite(model: Any, names: object) -> lowering.Lowered:
        return lowering.Lowered(fault.change(model))

    monkeypatch.setattr(lowering, "rewrite", rewrite)


class _Converter:
    """TensorFlow's converter, with other weights in the model while it runs."""

    def __init__(self, real: Any, model: Any, before: Any, after: Any) -> None:
        self.__dict__.update(_real=real, _model=model, _before=before, _after=after)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)

    def convert(self) -> Any:
        try:
            self._assign(self._after)
            return self._real.convert()
        finally:
            self._assign(self._before)

    def _assign(self, values: dict[str, Any]) -> None:
        for weight in self._model.weights:
            weight.assign(values[weight.path])


def into_tflite(monkeypatch: pytest.MonkeyPatch, fault: Fault, genuine: Genuine) -> None:
    import tensorflow as tf

    given = genuine.files[fault.instead or fault.target]
    if fault.target == "tflite:int8":  # TensorFlow's quantiser writes it, from the float file
        spoilt = MagicMock(side_effect=lambda *_, **__: fault.change(given))
        monkeypatch.setattr(tflite_static, "quantise", spoilt)
        return
    converter = MagicMock()
    converter.convert = lambda: fault.change(given)
    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_concrete_functions", lambda _: converter)


def into_onnx(monkeypatch: pytest.MonkeyPatch, fault: Fault, genuine: Genuine) -> None:
    for name in onnx_routes.ROUTES:
        monkeypatch.setitem(onnx_routes.ROUTES, name, _route(genuine.routes[name], fault.change))


def _route(content: bytes, change: Callable[[Any], Any]) -> onnx_routes.Route:
    def route(source: Source, folder: Path) -> Written:
        import onnx as toolkit

        model = toolkit.load_from_string(content)
        change(model)
        return Written(model)

    return route


def into_files(monkeypatch: pytest.MonkeyPatch, fault: Fault, genuine: Genuine) -> None:
    into_onnx(monkeypatch, Fault(fault.target, lambda model: None), genuine)
    precision: Any = fault.target.split(":")[1]
    real = onnx.RECIPES[precision]
    monkeypatch.setitem(onnx.RECIPES, precision, lambda *given: fault.change(real(*given)))


def into_contracts(monkeypatch: pytest.MonkeyPatch, fault: Fault, genuine: Genuine) -> None:
    unspoilt = Fault(fault.target, lambda made: made)
    BENEATH[fault.target.split(":")[0]](monkeypatch, unspoilt, genuine)
    real = contract_builder.contract_of
    monkeypatch.setattr(contract_builder, "contract_of", lambda *given: fault.change(real(*given)))


BENEATH: dict[str, Inject] = {"tflite": into_tflite, "onnx": into_onnx}
TABLES: dict[str, tuple[dict[str, Fault], Inject]] = {
    "weights": (seeded_faults.WEIGHTS, into_weights),
    "lowering": (seeded_faults.LOWERINGS, into_lowerings),
    "tflite": (seeded_faults.TFLITE, into_tflite),
    "onnx": (seeded_faults.ONNX, into_onnx),
    "files": (seeded_faults.FILES, into_files),
    "contract": (seeded_faults.CONTRACTS, into_contracts),
}
CASES = [
    pytest.param(fault, inject, id=f"{where}: {name}")
    for where, (faults, inject) in TABLES.items()
    for name, fault in faults.items()
]
TARGETS = sorted({fault.target for faults, _ in TABLES.values() for fault in faults.values()})


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_without_a_fault_it_passes(
    convert: Convert,
    genuine: Genuine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
) -> None:
    form = target.split(":")[0]
    known = form == "onnx" or target in genuine.files
    inject = BENEATH[form] if known else into_weights
    inject(monkeypatch, Fault(target, lambda made: made), genuine)
    code, words = convert(target)
    assert code == 0, words
    form, precision = target.split(":")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"demo.{precision}.{form}"]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "inject"), CASES)
def test_no_fault_is_released(
    convert: Convert,
    genuine: Genuine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    inject: Inject,
) -> None:
    inject(monkeypatch, fault, genuine)
    code, words = convert(fault.target)
    assert code in (1, 2), words
    left = {path.suffix for path in tmp_path.glob("out/*")}
    assert left <= {".rejected", ".log"}
