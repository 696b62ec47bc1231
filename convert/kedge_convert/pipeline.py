"""The conversion as a story: source, float model, rewrite, prepare, then each target.

A target is exported (integers: quantised), sealed, compared with the float model, and released.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from kedge_convert import (
    contract_builder,
    convertible,
    float_model,
    job_checks,
    sketching,
)
from kedge_convert.calibration import synthetic
from kedge_convert.calibration.synthetic import Synthesis
from kedge_convert.confidence import Completed, complete
from kedge_convert.convertible import Convertible, ExportAttempt
from kedge_convert.device import fit, loader
from kedge_convert.device.compilers import compiled_name
from kedge_convert.device.fit import DeviceFit
from kedge_convert.export import onnx, structure
from kedge_convert.export.formats import FORMATS
from kedge_convert.float_model import FloatModel
from kedge_convert.images import CALIBRATE, ImageSplit, collect
from kedge_convert.job import Checked, ImageRequest, Job, Outcome, ReleaseRequest, failed
from kedge_convert.load.finite_weights import refuse_weights
from kedge_convert.memory import map_large_blocks
from kedge_convert.parity import AskedFile
from kedge_convert.sampling import Sampling
from kedge_convert.source import Source, load_source
from kedge_convert.staging import (
    forget,
    output_folder,
    publish,
    refuse_other_device,
    rejected,
    room_for_temporaries,
    write,
)
from kedge_convert.targets import Target
from kedge_convert.toolkit import ConversionError
from kedge_convert.verdict import after_misses, budget_miss, judge, limits_for, notes_on
from kedge_convert.worker.progress import Progress
from kedge_models.demo import pictograms
from kedge_runtime.artefact import containers
from kedge_runtime.artefact.content import ModelContent, SealedParts
from kedge_runtime.artefact.contract import Input
from kedge_runtime.artefact.file import members_of, read_artefact
from kedge_runtime.artefact.sealing import golden_set, inexact_note
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.errors import ArtefactError, ContractError, EngineError, one_line
from kedge_runtime.files import staged, temporary_folder, write_whole
from kedge_runtime.image.folder import find_images, unread_files
from kedge_runtime.modelfile.report import inspect
from kedge_runtime.output import quiet

LOG = logging.getLogger("kedge")

# Errors of one target only. Usage errors concern them all.
OF_ONE_TARGET = (ConversionError, EngineError, ArtefactError, ContractError)


def convert(job: Job, progress: Progress) -> Iterator[Outcome]:
    """Make, check and release every target; yield each outcome as soon as it is known.

    A target that misses its limits or can't be made is an Outcome too. Raises KedgeError for what
    concerns all targets.
    """
    job_checks.check_images(job)  # before a large model is loaded in vain
    if job.prepares:
        map_large_blocks()  # the preparation of weights is the peak
    with output_folder(job.out):
        source, shipped = _loaded(job, progress)
        refuse_other_device(job.paths(source.name), job.release.device_name)
        with _images_of(job, source, progress) as images:
            limited = job.limits.drop is not None
            reference = float_model.ask(shipped, images, progress, classes=limited)
            if not job.request.force_input:
                float_model.refuse_other_input(reference, progress)
            source = convertible.rewrite(source, images, job.rewrites, progress)
            preparation = job.preparation(source.input)
            model = convertible.prepare(source, images, preparation, progress)
            for target in job.targets:
                progress.start_part(str(target))
                try:
                    outcome = _made(target, model, reference, job.release, progress)
                except OF_ONE_TARGET as error:
                    LOG.info("%s", progress.position, exc_info=True)
                    outcome = failed(target, one_line(error, 400))
                yield outcome


def _loaded(job: Job, progress: Progress) -> tuple[Source, Source]:
    """Load the model and tell the user what was found. Raises UsageError for one of no use.

    The second source ends as the files do: some devices want the output activation inside.
    """
    with progress.stage("load model"):
        source = load_source(job.request)
        refuse_weights(source.model, source.name)
    shipped = loader.as_loaded(source, job.device)
    for note in shipped.notes:
        progress.note(note)
    return source, shipped


@contextmanager
def _images_of(job: Job, source: Source, progress: Progress) -> Iterator[ImageSplit]:
    """Yield the images of a conversion. Raises UsageError."""
    if not job.synthetic:
        with _images(job.images, source.input, progress) as images:
            yield images
        return
    with temporary_folder() as folder:
        yield _synthetic(folder, job.sampling, source, progress)


@contextmanager
def _images(request: ImageRequest, spec: Input, progress: Progress) -> Iterator[ImageSplit]:
    """Yield the user's images, or rendered ones where calibration needs none."""
    sampling = request.sampling
    count = sampling.calibration + sampling.check
    if request.folder is None:
        with temporary_folder() as folder:
            with progress.stage("render images"):
                pictograms.write(folder, count, sampling.seed)
            yield collect(folder, sampling, spec=spec)
        return
    with progress.stage(
        "read images", min(count, len(find_images(request.folder, CALIBRATE)))
    ) as tick:
        images = collect(request.folder, sampling, tick, spec)
    if others := unread_files(request.folder):
        progress.say(f"{request.folder}: {others}")
    progress.warn_skipped(images)
    progress.warn_few(images, sampling)
    yield images


def _synthetic(folder: Path, sampling: Sampling, source: Source, progress: Progress) -> ImageSplit:
    """Return images that are made from the model, and say so. Raises UsageError."""
    count, how = sampling.calibration + sampling.check, Synthesis(seed=sampling.seed)
    with progress.stage("make images", synthetic.total_steps(how)) as tick, quiet():
        synthetic.write(folder, source, count, how, tick)
    progress.say(synthetic.NOTE.format(count))
    return collect(folder, sampling)


def _made(
    target: Target,
    model: Convertible,
    reference: FloatModel,
    request: ReleaseRequest,
    progress: Progress,
) -> Outcome:
    """Return the outcome of the first attempt that holds the budget, or of the widest one."""
    misses: tuple[str, ...] = ()
    for attempt in _attempts(target, model, progress):
        try:
            tried = _tried(replace(attempt, misses=misses), model, reference, request, progress)
        except OF_ONE_TARGET as error:
            if attempt.widest:
                raise
            LOG.info("%s", progress.position, exc_info=True)
            tried = _miss(attempt, one_line(error, 200))
        if isinstance(tried, Outcome):
            return tried
        misses = (*misses, tried)
    raise AssertionError("the widest attempt has an outcome")


def _attempts(target: Target, model: Convertible, progress: Progress) -> Iterator[ExportAttempt]:
    """Yield the attempts of a target, each made when it is asked for."""
    attempts = model.attempts(target, progress)
    while True:
        # A SavedModel, or a float TFLite file, its ONNX twin and the quantiser's copy of that.
        with room_for_temporaries(4 * 4 * model.source.parameters):
            attempt = next(attempts, None)
        if attempt is None:
            return
        yield attempt


def _tried(
    attempt: ExportAttempt,
    model: Convertible,
    reference: FloatModel,
    request: ReleaseRequest,
    progress: Progress,
) -> Outcome | str:
    """Seal, check, and only then give a file its name.

    A budget that it misses while a wider attempt is left gives a line instead, and no file.
    """
    target, recipe = attempt.target, replace(attempt.recipe, device=request.device_name)
    name = replace(target, precision=recipe.precision).file_name(model.source.name)
    final = request.out / name
    with staged(final) as temporary:
        about = _written(temporary, replace(attempt, recipe=recipe), model, reference, request)
        limits = limits_for(recipe.precision, request.limits)
        file = AskedFile(temporary)
        measured = float_model.check(file, target, reference, limits, progress)
        asked = after_misses(limits, measured, len(attempt.misses))
        if not attempt.widest and (miss := budget_miss(measured, asked)):
            return _miss(attempt, miss)
        completed = _completed(file, target, reference, request, progress)
        fitted, compiled = _fitted(target, temporary, request, progress)
        verdict = judge(measured, limits).joined(fitted.problems if fitted else ())
        sketched = verdict.passed and request.sketched
        seen = sketching.add(file, target, model, progress) if sketched else ()
        path = final if verdict.passed else rejected(final)
        size = temporary.stat().st_size
        publish(temporary, path)
    beside = _released(final, compiled, request) if verdict.passed else None
    folder = _foldered(final, model.source.name, request) if verdict.passed else None
    ratio, head = size / (4 * model.source.parameters), model.source.head
    checked = Checked(
        path, size, ratio, measured, recipe, head, fitted, beside, completed.confidence, folder
    )
    notes = (*attempt.misses, *about, *notes_on(measured, limits), *completed.notes, *seen)
    return Outcome(target, verdict, checked, (*notes, *_unprepared(target, request)))


def _miss(attempt: ExportAttempt, reason: str) -> str:
    """Return the line of an attempt that another one follows, with its price."""
    parts = (f"{attempt.recipe.precision}: {reason}", *attempt.notes)
    return "; ".join((*parts, "a wider file is tried"))


def _completed(
    file: AskedFile,
    target: Target,
    reference: FloatModel,
    request: ReleaseRequest,
    progress: Progress,
) -> Completed:
    """Store which images checked a file and, where labelled ones are left, its confidence."""
    if request.confidence is None:
        return Completed()
    return complete(file, target, reference, request.confidence, progress)


def _written(
    path: Path,
    attempt: ExportAttempt,
    model: Convertible,
    reference: FloatModel,
    request: ReleaseRequest,
) -> tuple[str, ...]:
    """Write the sealed file of an attempt; return notes on it, but none of its bytes."""
    exported = attempt.exported
    if request.dynamic_batch and attempt.target.format == "onnx":
        exported = onnx.opened(exported, model.source)
    exported = loader.finished(exported, model.source, reference.source)
    bare = ModelContent(path, attempt.target.format, exported.content)
    parts, notes = _sealed(bare, attempt, model, reference)
    write(path, *parts)
    return (*exported.notes, *notes)


def _sealed(
    bare: ModelContent, attempt: ExportAttempt, model: Convertible, reference: FloatModel
) -> tuple[SealedParts, tuple[str, ...]]:
    """Return the file with its contract, its golden set and what other programs read, and notes."""
    target, recipe = attempt.target, attempt.recipe
    structure.check_precision(bare, recipe.precision, model.source.name)
    source = replace(model.source, output=reference.source.output)
    with quiet():
        engine = open_engine(bare)
    contract = contract_builder.contract_of(source, target, engine, model.images, recipe)
    del engine  # the golden set's holds the weights, too
    golden = golden_set(bare, contract, reference.golden, reference.golden_logits)
    described = FORMATS[target.format].describe(bare.data, contract)
    members = members_of(target.format, contract, golden)
    parts = containers.parts(target.format, described.content, members)
    return parts, (*described.notes, *inexact_note(contract, golden))


def _fitted(
    target: Target, path: Path, request: ReleaseRequest, progress: Progress
) -> tuple[DeviceFit | None, bytes]:
    """Check a sealed file against the device; return also the compiler's output."""
    if request.device is None:
        return None, b""
    with progress.stage(f"fit {target} to {request.device.name}"):
        report = inspect(path)
        attempt = fit.tried(report, request.device)
        return fit.judged(report, request.device, request.gates, attempt), attempt.content


def _released(final: Path, compiled: bytes, request: ReleaseRequest) -> Path | None:
    """Remove what an earlier run rejected; write the compiled file beside its artefact, if any."""
    forget(final, request.device_name)
    if request.device is None or not compiled:
        return None
    path = compiled_name(final, request.device)
    write_whole(path, compiled)
    return path


def _foldered(final: Path, source: str, request: ReleaseRequest) -> Path | None:
    """Write the folder that the device's program loads, if it takes one."""
    folder = loader.folder_of(final, source, request.device)
    if folder is not None and request.device is not None:
        loader.write_folder(
            folder, request.device, final.read_bytes(), read_artefact(final).contract
        )
    return folder


def _unprepared(target: Target, request: ReleaseRequest) -> tuple[str, ...]:
    """Return the line that says why a target has stock weights, if preparation failed."""
    told = request.unprepared and target.needs_calibration
    return (f"stock weights: {request.unprepared}",) if told else ()
