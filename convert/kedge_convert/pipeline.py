"""The conversion as a story: source, export, seal, parity, release."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from kedge_convert import asking, doubts, own_pixels, parity, sealing
from kedge_convert.device import fit
from kedge_convert.device.fit import DeviceFit
from kedge_convert.device.release import compiled_name
from kedge_convert.export import onnx, structure
from kedge_convert.export.exported import Exported, Way
from kedge_convert.export.formats import FORMATS
from kedge_convert.float_model import FloatModel, ask, judged_by, refuse_other_input
from kedge_convert.images import CALIBRATE, Photos, collect
from kedge_convert.initialise import initialised
from kedge_convert.job import Checked, Job, Outcome, failed
from kedge_convert.parity import Parity, ParityLimits
from kedge_convert.prepare import preparation
from kedge_convert.quantise import candidates, search
from kedge_convert.quantise.candidates import Candidate, Sources
from kedge_convert.quantise.search import Search
from kedge_convert.rewrite import on_request
from kedge_convert.source import load_source
from kedge_convert.staging import (
    forget,
    output_folder,
    publish,
    rejected,
    room_for_temporaries,
    spare,
    write,
)
from kedge_convert.targets import Target
from kedge_convert.toolkit import ConversionError
from kedge_convert.worker.events import PREPARATION
from kedge_convert.worker.progress import Progress
from kedge_models.demo import pictograms
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.sealing import golden_set, inexact_note
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.errors import ArtefactError, ContractError, EngineError, one_line
from kedge_runtime.files import staged, temporary_folder, write_whole
from kedge_runtime.image.folder import find_images, unread_files
from kedge_runtime.modelfile.report import inspect
from kedge_runtime.output import quiet

LOG = logging.getLogger("kedge")

UNTREATED = "preparation: no layers to treat; integer targets get the weights as they are"
UNTRIED = (
    "budget: layers can stay float only where preparation treats them, so nothing is tried to hold "
    "it; tflite:float16 and onnx:float16 are the next wider targets"
)
TRIED = 4  # real pictures on which an export is tried before it is taken
# What speaks against one target only. The user's mistakes concern them all.
OF_ONE_TARGET = (ConversionError, EngineError, ArtefactError, ContractError)


def convert(job: Job, progress: Progress) -> list[Outcome]:
    """Make, check and release every target, in this process.

    A target that misses or can't be made is an Outcome; the rest raises KedgeError.
    """
    return list(outcomes(job, progress))


def outcomes(job: Job, progress: Progress) -> Iterator[Outcome]:
    """Do as `convert` does, and yield each target's outcome as soon as it is known."""
    asking.check_images(job)  # before a large model is loaded in vain
    with output_folder(job.out):
        with progress.stage("load model"):
            source = load_source(job.request)
            doubts.refuse_weights(source.model, source.name)
            spare(job.places(source.name), job.device_name)
        for note in source.notes:
            progress.note(note)
        with _pictures(job, progress) as photos:
            if source.untrained:
                source = initialised(source, photos, job.sampling.seed, progress)
            original = judged_by(job, ask(source, photos, progress))
            refuse_other_input(job, original, progress)
            original = _prepared(job, _exportable(job, original, progress), progress)
            for target in job.targets:
                progress.turn(str(target))
                yield _outcome(job, target, original, progress)


def _exportable(job: Job, original: FloatModel, progress: Progress) -> FloatModel:
    """Put the model that is exported in the place of the user's, which has been asked.

    It is the same function in plainer operators: what all formats need, and the user's rewrites.
    """
    rewritten = on_request.rewrite(original.source.model, job.rewrites)
    for note in rewritten.notes:
        progress.note(note)
    source, pictures = original.source, original.photos.calibration[:TRIED]
    source = replace(source, model=rewritten.model, pictures=pictures)
    return replace(original, source=source)


def _prepared(job: Job, original: FloatModel, progress: Progress) -> FloatModel:
    if not any(target.needs_calibration for target in job.targets):
        return original
    if not (treatable := preparation.treatable(original.source.model)) and job.prepare:
        progress.note(UNTREATED)
    if not (treatable and job.prepare):
        if job.mixes:
            progress.say(UNTRIED)
        return original
    progress.turn(PREPARATION)
    forms = tuple(target.form for target in job.targets if target.needs_calibration)
    making = candidates.Making(job.sampling.seed, job.scheme, forms)
    found = candidates.sources(original.source, original.photos, making, progress)
    wanted = search.search(found, job.budget, progress) if job.mixes else None
    return replace(original, sources=found, search=wanted)


def _outcome(job: Job, target: Target, original: FloatModel, progress: Progress) -> Outcome:
    """Make one target; what can't be made is told, and doesn't keep the others from it."""
    try:
        made = _make(job, target, original, progress)
    except OF_ONE_TARGET as error:
        LOG.info("%s", progress.position, exc_info=True)
        return failed(target, one_line(error, 400))
    if job.unprepared and target.needs_calibration:
        return replace(made, notes=(*made.notes, f"stock weights: {job.unprepared}"))
    return made


def _make(job: Job, target: Target, original: FloatModel, progress: Progress) -> Outcome:
    """Export, seal, check, and only then give the file its name."""
    way, exported = _export(job, target, original, progress)
    final = job.out / replace(target, precision=way.precision).file_name(original.source.name)
    with staged(final) as temporary:
        if job.dynamic_batch and target.form == "onnx":
            exported = onnx.opened(exported, original.source)
        bare = ModelContent(temporary, target.form, exported.content)
        sealed = _sealed(bare, target, original, way)
        write(temporary, sealed.content)
        limits = parity.limits_for(way.precision, **job.limits)
        measured = _check(temporary, target, original, limits, progress)
        fitted, compiled = _fitted(job, target, temporary, progress)
        verdict = parity.judge(measured, limits).joined(fitted.problems if fitted else ())
        path = final if verdict.passed else rejected(final)
        size = temporary.stat().st_size
        publish(temporary, path)
    if verdict.passed:
        forget(final, job.device_name)
    ratio = size / (4 * original.source.parameters)
    beside = _beside(job, final, compiled) if verdict.passed else None
    checked = Checked(path, size, ratio, measured, way, original.source.head, fitted, beside)
    judged = (*parity.left_open(measured, limits), *parity.excused(measured, limits))
    notes = (*exported.notes, *sealed.notes, *judged)
    return Outcome(target, verdict, checked, notes)


def _fitted(
    job: Job, target: Target, path: Path, progress: Progress
) -> tuple[DeviceFit | None, bytes]:
    """Hold a sealed file against the job's device; return also what the compiler made of it."""
    if job.device is None:
        return None, b""
    with progress.stage(f"fit {target} to {job.device.name}"):
        report = inspect(path)
        made = fit.tried(report, job.device)
        return fit.judged(report, job.device, job.gates, made), made.content


def _beside(job: Job, final: Path, compiled: bytes) -> Path | None:
    """Write the compiled file beside its artefact, if there is one."""
    if job.device is None or not compiled:
        return None
    place = compiled_name(final, job.device)
    write_whole(place, compiled)
    return place


def _export(
    job: Job, target: Target, original: FloatModel, progress: Progress
) -> tuple[Way, Exported]:
    """Return the unsealed model, and how it was made."""
    way, exported = _quantised(job, target, original, progress)
    return replace(way, device=job.device_name), exported


def _quantised(
    job: Job, target: Target, original: FloatModel, progress: Progress
) -> tuple[Way, Exported]:
    source, photos = original.source, original.photos
    # A SavedModel, or a float TFLite file, its ONNX twin and what the quantiser makes of that.
    with room_for_temporaries(4 * 4 * source.parameters):
        if target.needs_calibration and original.sources is not None:
            best = _best(target, original.sources, original.search, progress)
            return best.way, Exported(best.content, best.notes)
        calibration = photos.calibration if target.needs_calibration else ()
        with progress.stage(f"export {target}", len(calibration) or None) as tick:
            form = FORMATS[target.form]
            exported = form.export(source, target.precision, calibration, tick, job.scheme)
            return Way(target.precision), exported


def _best(target: Target, found: Sources, wanted: Search | None, progress: Progress) -> Candidate:
    """Return the nearest integer model or, with a budget, the cheapest that holds it."""
    if wanted and target.precision == "int8":
        return search.cheapest(target, wanted, progress)
    return candidates.best(target, found, progress)


def _sealed(content: ModelContent, target: Target, original: FloatModel, way: Way) -> Exported:
    structure.check_precision(content, way.precision, original.source.name)
    with quiet():
        engine = open_engine(content)
    contract = sealing.contract_of(original.source, target, engine, original.photos, way)
    golden = golden_set(content, contract, original.golden, original.golden_logits)
    described = FORMATS[target.form].describe(content.data, contract)
    sealed = seal(target.form, described.content, contract, golden)
    return Exported(sealed, (*described.notes, *inexact_note(contract, golden)))


def _check(
    path: Path, target: Target, original: FloatModel, limits: ParityLimits, progress: Progress
) -> Parity:
    """Measure a sealed file, on more and more pictures as long as they leave a limit open."""
    photos: Sequence[Path] = original.photos.check
    logits = original.logits
    candidate = _answers(path, target, photos, progress)
    measured = _measured(original, photos, logits, candidate)
    while parity.is_open(measured, limits):
        photos, logits = original.reserve.first(2 * measured.images, progress)
        if not (added := photos[measured.images :]):
            break
        candidate = np.concatenate([candidate, _answers(path, target, added, progress)])
        measured = _measured(original, photos, logits, candidate)
    return measured


def _answers(path: Path, target: Target, photos: Sequence[Path], progress: Progress) -> Floats:
    with progress.stage(f"check {target}", len(photos)) as tick:
        return parity.answers(path, photos, tick)


def _measured(
    original: FloatModel, photos: Sequence[Path], logits: Floats, candidate: Floats
) -> Parity:
    source = original.source
    measured = parity.compare(logits, candidate, source.output)
    library = own_pixels.library(source.input)
    measured = parity.with_own_pixels(
        measured, library, original.own_logits, logits, candidate, source.output
    )
    known = original.classes
    classes = None if known is None else [known[photo] for photo in photos]
    return parity.with_drop(measured, logits, candidate, classes)


@contextmanager
def _pictures(job: Job, progress: Progress) -> Iterator[Photos]:
    """Yield the user's pictures, or rendered ones where none are needed for calibration."""
    sampling = job.sampling
    count = sampling.calibration + sampling.check
    if job.calibrate is not None:
        there = len(find_images(job.calibrate, CALIBRATE))
        with progress.stage("read pictures", min(count, there)) as tick:
            photos = collect(job.calibrate, sampling, tick)
        if others := unread_files(job.calibrate):
            progress.say(f"{job.calibrate}: {others}")
        progress.warn_passed_over(photos)
        progress.warn_few(photos, sampling)
        yield photos
        return
    with temporary_folder() as folder:
        with progress.stage("render pictures"):
            pictograms.write(folder, count, sampling.seed)
        yield collect(folder, sampling)
