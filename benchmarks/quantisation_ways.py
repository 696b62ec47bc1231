"""The ways from a Keras model to an integer one that `quantisation.py` compares.

Each way runs in a process of its own, so that none inherits another's memory or warm caches, and
gives the unsealed models that it makes. To add a way, add a function to WAYS.
"""

import math
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert import contract_builder, convertible
from kedge_convert import float_model as reference
from kedge_convert.convertible import Convertible, ExportAttempt
from kedge_convert.export.exported import ExportOptions, Recipe
from kedge_convert.export.formats import FORMATS
from kedge_convert.images import ImageSplit, tensors
from kedge_convert.job import PreparationRequest
from kedge_convert.load.request import SourceRequest
from kedge_convert.parity import divergence
from kedge_convert.quantise import candidates
from kedge_convert.quantise.budget import Budget
from kedge_convert.quantise.effort import DEFAULT, HIGH, Effort
from kedge_convert.source import Source, load_source
from kedge_convert.targets import Target
from kedge_convert.worker.progress import Progress
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Contract, Input, Label, Output
from kedge_runtime.artefact.file import Artefact, seal
from kedge_runtime.artefact.sealing import golden_set
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.output import quiet

# At most so many images' activations are held by onnxruntime's histograms at once; it wants a
# divisor of their number.
STRIDE = 10
PEER = Path(__file__).parent / "peer_quantise.py"


@dataclass(frozen=True)
class Job:
    """What to convert, with which images; `seed` drew them. `budget`: of the way that has one.

    `peer_python`: the interpreter that has the other projects' tools.
    """

    request: SourceRequest
    photos: ImageSplit
    seed: int
    budget: Budget
    peer_python: str = sys.executable


@dataclass(frozen=True)
class Facts:
    """What a contract takes from the source, without its weights."""

    input: Input
    output: Output
    labels: tuple[Label, ...]
    parameters: int


@dataclass(frozen=True)
class Made:
    """One model. `seconds`: of its conversion, the loading of frameworks and source not counted.

    `seal`: what sealing adds, in bytes. `note`: what the way chose, or why there is no model.
    """

    way: str
    form: str
    content: bytes
    seconds: float = 0.0
    seal: int = 0
    note: str = ""


@dataclass(frozen=True)
class Original:
    """The float model's facts and its logits on the check images."""

    facts: Facts
    logits: Floats


def original(job: Job) -> Original:
    """Ask the float model, in a process of its own."""
    found: Original = _apart(_original, job)
    return found


def convert(way: str, job: Job) -> list[Made]:
    """Go one way in a process of its own; a failure is a Made without content."""
    made: list[Made] = _apart(_convert, way, job)
    return made


def classifier(facts: Facts, made: Made, folder: Path, options: EngineOptions) -> Classifier:
    """Open an unsealed model through the runtime, as a device would."""
    path = folder / f"model.{made.form}"
    path.write_bytes(made.content)
    with quiet():
        engine = open_engine(read_content(path), options)
    contract = Contract(
        replace(facts.input, tensor=engine.input),
        replace(facts.output, tensor=engine.output),
        facts.labels,
    )
    return Classifier(Artefact(path, contract, b"", ""), engine)


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def _original(job: Job) -> Original:
    source = load_source(job.request)
    return Original(_facts(source), source.logits(tensors(job.photos.validation, source.input)))


def _convert(way: str, job: Job) -> list[Made]:
    source = load_source(job.request)
    try:
        return [replace(made, way=way) for made in WAYS[way](source, job)]
    # Whatever a toolkit raises is this row's answer.
    except Exception as error:
        reason = f"fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return [Made(way, "", b"", note=reason)]


def _facts(source: Source) -> Facts:
    return Facts(source.input, source.output, source.labels, source.parameters)


def _stock_tflite(source: Source, job: Job) -> Iterator[Made]:
    start = time.perf_counter()
    made = FORMATS["tflite"].export(source, "int8", ExportOptions(job.photos.calibration))
    yield Made("", "tflite", made.content, time.perf_counter() - start)


def _peer(tool: str, form: str, source: Source, job: Job) -> Iterator[Made]:
    """Another project's tool on the float file, by the interpreter that has it."""
    with quiet(), tempfile.TemporaryDirectory() as folder:
        names = (f"float32.{form}", "inputs.npy", f"int8.{form}")
        model, inputs, out = (Path(folder) / name for name in names)
        model.write_bytes(FORMATS[form].export(source, "float32").content)
        np.save(inputs, np.stack(list(tensors(job.photos.calibration, source.input))))
        command = [str(word) for word in (job.peer_python, "-I", PEER, tool, model, inputs, out)]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        yield Made("", form, out.read_bytes(), seconds, note=done.stdout.splitlines()[-1])


def _stock_onnx(source: Source, job: Job) -> Iterator[Made]:
    """Calibrate by each of onnxruntime's methods and keep the best on held-out images."""
    start = time.perf_counter()
    logits = source.logits(tensors(job.photos.selection, source.input))
    divergences: dict[float, Made] = {}
    for method in ("MinMax", "Entropy", "Percentile"):
        began = time.perf_counter()
        made = Made("", "onnx", _static_onnx(source, job.photos.calibration, method), note=method)
        made = replace(made, seconds=time.perf_counter() - began)
        answers = _answers(_facts(source), made, job.photos.selection)
        divergences[divergence(logits, answers, source.output)] = made
    best = divergences[min(divergences)]
    yield replace(best, note=f"{best.note}; all three in {time.perf_counter() - start:.0f} s")


def _static_onnx(source: Source, photos: Sequence[Path], method: str) -> bytes:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with quiet(), tempfile.TemporaryDirectory() as folder:
        floats, folded, integers = (Path(folder) / f"{name}.onnx" for name in ("f", "p", "i"))
        floats.write_bytes(FORMATS["onnx"].export(source, "float32").content)
        quant_pre_process(str(floats), str(folded), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(folded),
            str(integers),
            _reader(source, photos),
            per_channel=True,
            calibrate_method=quantization.CalibrationMethod[method],
            extra_options={"CalibStridedMinMax": math.gcd(len(photos), STRIDE)},
        )
        return integers.read_bytes()


def _reader(source: Source, photos: Sequence[Path]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """All images, or the range of them that onnxruntime asks for."""

        def __init__(self) -> None:
            self._tensors = tensors(photos, source.input)

        def __len__(self) -> int:
            return len(photos)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._tensors = tensors(photos[start_index:end_index], source.input)

        def get_next(self) -> dict[str, Any] | None:
            tensor = next(self._tensors, None)
            return None if tensor is None else {"input": tensor}

    return Reader()


def _kedge(source: Source, job: Job) -> Iterator[Made]:
    """As `kedge convert` does it: the nearest of the candidates, then sealed."""
    with Progress(silent=True) as progress:
        asked = reference.ask(source, job.photos, progress)
        start = time.perf_counter()
        model = _prepared(source, job, Budget(), progress)
        yield from _both(asked, start, lambda to: next(model.attempts(to, progress)))


def _kedge_high(source: Source, job: Job) -> Iterator[Made]:
    """As `kedge convert --effort high` does it: with copied channels, where they win."""
    with Progress(silent=True) as progress:
        asked = reference.ask(source, job.photos, progress)
        start = time.perf_counter()
        model = _prepared(source, job, Budget(), progress, HIGH)
        yield from _both(asked, start, lambda to: next(model.attempts(to, progress)))


def _kedge_with_budget(source: Source, job: Job) -> Iterator[Made]:
    """As `kedge convert --min-agreement` does it: layers stay float until the budget holds."""
    with Progress(silent=True) as progress:
        asked = reference.ask(source, job.photos, progress)
        start = time.perf_counter()
        model = _prepared(source, job, job.budget, progress)
        yield from _both(asked, start, lambda to: next(model.attempts(to, progress)))


def _prepared(
    source: Source, job: Job, budget: Budget, progress: Progress, effort: Effort = DEFAULT
) -> Convertible:
    options = candidates.QuantisationOptions(job.seed, effort=effort)
    request = PreparationRequest(options=options, budget=budget)
    return convertible.prepare(source, job.photos, request, progress)


def _both(
    asked: reference.FloatModel, start: float, make: Callable[[Target], ExportAttempt]
) -> Iterator[Made]:
    """Yield each format's model; what they share counts for both."""
    shared = time.perf_counter() - start
    for form in FORMATS:
        began = time.perf_counter()
        best = make(Target(form, "int8"))
        seconds = shared + time.perf_counter() - began
        made = Made("", form, best.exported.content, seconds, note=_note(best.recipe))
        yield replace(made, seal=_seal_size(asked, made))


def _note(recipe: Recipe) -> str:
    layers = f", float: {', '.join(recipe.float_layers)}" if recipe.float_layers else ""
    copies = f", copied: {', '.join(recipe.copied_layers)}" if recipe.copied_layers else ""
    return f"{recipe.precision}, {recipe.method}, {recipe.ranges}{layers}{copies}"


def _seal_size(asked: reference.FloatModel, made: Made) -> int:
    target = Target(made.form, "int8")
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / f"model.{made.form}"
        path.write_bytes(made.content)
        content = read_content(path)
        engine = open_engine(content)
        contract = contract_builder.contract_of(asked.source, target, engine, asked.images)
        golden = golden_set(read_content(path), contract, asked.golden, asked.golden_logits)
    return len(seal(made.form, made.content, contract, golden)) - len(made.content)


def _answers(facts: Facts, made: Made, photos: Sequence[Path]) -> Floats:
    with tempfile.TemporaryDirectory() as folder:
        opened = classifier(facts, made, Path(folder), EngineOptions())
        return np.stack([opened.outputs(photo) for photo in photos])


# Row's heading -> way. The first way of a format is the one that its others are held against.
WAYS: dict[str, Callable[[Source, Job], Iterator[Made]]] = {
    "stock TFLiteConverter": _stock_tflite,
    "litert-quantizer": partial(_peer, "litert-quantizer", "tflite"),
    "stock onnxruntime": _stock_onnx,
    "nncf": partial(_peer, "nncf", "onnx"),
    "onnxsim": partial(_peer, "onnxsim", "onnx"),
    "onnxsim AdaQuant": partial(_peer, "onnxsim AdaQuant", "onnx"),
    "kedge": _kedge,
    "kedge high": _kedge_high,
    "kedge with budget": _kedge_with_budget,
}
