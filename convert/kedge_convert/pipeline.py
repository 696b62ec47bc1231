"""The conversion as a story: source, export, seal, parity, release."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from kedge_convert import candidates, heads, parity, sealing
from kedge_convert.candidates import Sources
from kedge_convert.formats import FORMATS
from kedge_convert.parity import Parity, Verdict
from kedge_convert.photos import Photos, Sampling, Tick, collect, find, tensors
from kedge_convert.progress import Progress
from kedge_convert.source import Request, Source, load_source
from kedge_convert.staging import ensure_folder, publish, room_for_temporaries, staged, write
from kedge_convert.targets import Target
from kedge_convert.toolkit import quiet
from kedge_models.demo import pictograms
from kedge_runtime.artefact import seal
from kedge_runtime.contract import Method
from kedge_runtime.engines import open_engine
from kedge_runtime.errors import UsageError
from kedge_runtime.head import Floats

Item = TypeVar("Item")


@dataclass(frozen=True)
class Job:
    """One run of `kedge convert`. `calibrate`: the folder of pictures, if any.

    `prepare`: adjust the weights of integer targets first (docs/quantisation.md).
    `limits`: the user's own for `parity.Limits`, by name; None keeps the precision's default.
    """

    request: Request
    targets: tuple[Target, ...]
    out: Path
    calibrate: Path | None = None
    sampling: Sampling = Sampling()
    prepare: bool = True
    limits: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of one target. `path` ends in `.rejected` when the verdict is a miss."""

    target: Target
    path: Path
    size: int
    ratio: float
    parity: Parity
    verdict: Verdict
    method: Method


@dataclass(frozen=True)
class Original:
    """The float original's answers, asked once and held against every target."""

    source: Source
    photos: Photos
    logits: Floats
    golden: list[bytes]
    golden_logits: Floats
    sources: Sources | None = None


def convert(job: Job, progress: Progress) -> list[Outcome]:
    """Make, check and release every target. Raises KedgeError; a miss is an Outcome."""
    _check_calibration(job)
    ensure_folder(job.out)
    with progress.stage("load model"):
        source = load_source(job.request)
    with _pictures(job, progress) as photos:
        original = ask(source, photos, progress)
        if job.prepare and any(target.needs_calibration for target in job.targets):
            prepared = candidates.sources(source, photos, job.sampling.seed, progress)
            original = replace(original, sources=prepared)
        return [_make(job, target, original, progress) for target in job.targets]


def ask(source: Source, photos: Photos, progress: Progress) -> Original:
    """Run the float original over the check pictures and choose the golden ones among them."""
    with progress.stage("float original", len(photos.check)) as tick:
        logits = source.logits(_ticking(tensors(photos.check, source.input), tick))
    heads.check_logits(logits, source.name)
    golden = sealing.golden_pictures(source, photos.check, logits)
    return Original(source, photos, logits, golden, sealing.reference_answers(source, golden))


def _make(job: Job, target: Target, original: Original, progress: Progress) -> Outcome:
    """Export, seal, check, and only then give the file its name."""
    final = job.out / target.file_name(original.source.name)
    with staged(final) as temporary:
        method, content = _export(target, original, progress)
        write(temporary, content)
        write(temporary, _sealed(temporary, target, original, method))
        measured = _check(temporary, target, original, progress)
        limits = parity.limits_for(target.precision, **job.limits)
        verdict = parity.judge(measured, limits)
        rejected = final.with_name(final.name + ".rejected")
        path = final if verdict.passed else rejected
        size = temporary.stat().st_size
        publish(temporary, path)
    if verdict.passed:
        rejected.unlink(missing_ok=True)  # an earlier run's, and no longer true
    ratio = size / (4 * original.source.parameters)
    return Outcome(target, path, size, ratio, measured, verdict, method)


def _export(target: Target, original: Original, progress: Progress) -> tuple[Method, bytes]:
    """Return the unsealed model, and whether its weights were prepared."""
    source, photos = original.source, original.photos
    # A SavedModel, or a float TFLite file, its ONNX twin and what the quantiser makes of that.
    with room_for_temporaries(4 * 4 * source.parameters):
        if target.needs_calibration and original.sources is not None:
            best = candidates.best(target, original.sources, photos, progress)
            return best.method, best.content
        calibration = photos.calibration if target.needs_calibration else ()
        with progress.stage(f"export {target}", len(calibration) or None) as tick:
            form = FORMATS[target.form]
            return "stock", form.export(source, target.precision, calibration, tick)


def _sealed(path: Path, target: Target, original: Original, method: Method) -> bytes:
    with quiet():
        engine = open_engine(target.form, path)
    contract = sealing.contract_of(original.source, target, engine, original.photos, method)
    golden = sealing.golden_set(path, contract, original.golden, original.golden_logits)
    return seal(target.form, path.read_bytes(), contract, golden)


def _check(path: Path, target: Target, original: Original, progress: Progress) -> Parity:
    photos = original.photos.check
    with progress.stage(f"check {target}", len(photos)) as tick:
        candidate = parity.answers(path, photos, tick)
    return parity.compare(original.logits, candidate, original.source.activation)


def _ticking(items: Iterator[Item], tick: Tick) -> Iterator[Item]:
    for item in items:
        yield item
        tick()


def _check_calibration(job: Job) -> None:
    if job.calibrate is not None:
        find(job.calibrate)  # before a large model is loaded in vain
    needing = [str(target) for target in job.targets if target.needs_calibration]
    if needing and job.calibrate is None and job.request.model != "demo":
        raise UsageError(
            f"{needing[0]} needs pictures to calibrate with: give --calibrate DIR "
            "(about 200 photos like those the model will see)"
        )


@contextmanager
def _pictures(job: Job, progress: Progress) -> Iterator[Photos]:
    """Yield the user's pictures, or rendered ones where none are needed for calibration."""
    sampling = job.sampling
    count = sampling.calibration + sampling.check
    if job.calibrate is not None:
        with progress.stage("read pictures", count) as tick:
            photos = collect(job.calibrate, sampling, tick)
        progress.warn_broken(photos.broken)
        progress.warn_few(photos, sampling)
        yield photos
        return
    with tempfile.TemporaryDirectory(prefix="kedge-") as folder:
        with progress.stage("render pictures"):
            pictograms.write(Path(folder), count, sampling.seed)
        yield collect(Path(folder), sampling)
