"""Ask the float model once, and hold files against its answers.

It answers on kedge's pixels and on those of the user's own pipeline. `Reserve` holds more
validation images, for targets that the first ones leave undecided.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kedge_convert import contract_builder, doubts, own_pixels, parity
from kedge_convert.fitting import subject
from kedge_convert.images import ImageSplit, tensors, ticking
from kedge_convert.load import output_activation
from kedge_convert.load.registry import about
from kedge_convert.parity import AskedFile, OwnAnswers, Parity
from kedge_convert.quantise import search
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_convert.verdict import ParityLimits, is_open, is_settled
from kedge_convert.worker.progress import Progress
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.kinds import Precision
from kedge_runtime.artefact.sealing import golden_images
from kedge_runtime.errors import UsageError
from kedge_runtime.output import quiet

FOLD = 4  # times the images that were asked for, at most


@dataclass
class Reserve:
    """The validation images with the float model's logits, [images, classes].

    It grows when a target needs more of them; the next target finds them drawn and answered.
    """

    source: Source
    images: ImageSplit
    logits: Floats

    def __post_init__(self) -> None:
        """Set the limit of the growth."""
        self._most = FOLD * len(self.images.validation)

    def first(self, count: int, progress: Progress) -> tuple[Sequence[Path], Floats]:
        """Return so many images and their logits, or as many as the folder and FOLD allow."""
        missing = min(count, self._most) - len(self.images.validation)
        if missing > 0 and self.images.more:
            self._grow(missing, progress)
        return self.images.validation[:count], self.logits[:count]

    def _grow(self, missing: int, progress: Progress) -> None:
        with progress.stage("read more images", missing) as tick:
            images = self.images.enlarged(missing, tick)
        added = images.validation[len(self.images.validation) :]
        self.images = images
        if not added:
            return
        with progress.stage("float model on more images", len(added)) as tick:
            logits = self.source.logits(ticking(tensors(added, self.source.input), tick))
        self.logits = np.concatenate([self.logits, logits])


@dataclass(frozen=True)
class FloatModel:
    """The float model's answers, asked once and held against every target.

    `classes`: true classes of the validation images and of those that may be added, where the drop
    is limited and ground truth is known. `reserve`: the images that may be added.
    `own`: the answers to the validation images as the user's own pipeline loads them; None where no
    library loads images so.
    """

    source: Source
    images: ImageSplit
    logits: Floats
    golden: list[bytes]
    golden_logits: Floats
    reserve: Reserve
    classes: dict[Path, int] | None = None
    own: OwnAnswers | None = None


def ask(
    source: Source, images: ImageSplit, progress: Progress, *, classes: bool = False
) -> FloatModel:
    """Run the float model on the validation images and choose the golden ones among them.

    `classes`: whether the true classes matter, because the drop is limited.
    """
    with progress.stage("float model", len(images.validation)) as tick:
        logits = source.logits(ticking(tensors(images.validation, source.input), tick))
    with about(source.name):
        output_activation.check_answers(logits, source.output, certain=source.told)
    doubts.refuse_answers(logits, source.name)
    for doubt in doubts.doubts(source, images, logits):
        progress.say(doubt)
    golden = golden_images(source.input.geometry, images.validation, logits)
    return FloatModel(
        source,
        images,
        logits,
        golden,
        golden_logits=contract_builder.reference_answers(source, golden),
        reserve=Reserve(source, images, logits),
        own=_on_own_pixels(source, images, progress),
        classes=_classes(source, images) if classes else None,
    )


def _on_own_pixels(source: Source, images: ImageSplit, progress: Progress) -> OwnAnswers | None:
    """Return the float model's answers to images as the user's own pipeline loads them."""
    if source.output.kind == "features":
        return None
    loaded = own_pixels.own_tensors(images.validation, source.input)
    if loaded is None:
        return None
    with progress.stage("float model on own pixels", len(images.validation)) as tick:
        logits = source.logits(ticking(loaded, tick))
    return OwnAnswers(own_pixels.library(source.input), logits)


def _classes(source: Source, images: ImageSplit) -> dict[Path, int] | None:
    """Return the true class of each image that is or may be used for validation.

    Folders name one class of an image: of independent classes they say nothing.
    """
    if source.output.multi_label:
        return None
    paths = (*images.validation, *images.more)
    classes = search.true_classes(paths, source)
    return None if classes is None else dict(zip(paths, classes, strict=True))


def refuse_other_input(model: FloatModel, progress: Progress) -> None:
    """Raise UsageError where the validation images show that another input fits better."""
    source, paths = model.source, model.images.validation
    classes = subject.true_outputs(paths, source)
    if classes is None:
        return
    with progress.stage("check input"), quiet():
        finding = subject.better_input(source, paths, classes, model.logits)
    if finding:
        raise UsageError(finding.line)


# Validation images of the first look at a file of slow kernels (int16x8: .2 s an image): the fewest
# whose interval can hold its default limit with one miss among them.
FIRST_LOOK: dict[Precision, int] = {"int16x8": 55}


def check(
    file: AskedFile, target: Target, model: FloatModel, limits: ParityLimits, progress: Progress
) -> Parity:
    """Compare a sealed file with the float model, on more images while a limit stays open."""
    images: Sequence[Path] = model.images.validation[: FIRST_LOOK.get(target.precision)]
    answers = _answers(file, target, images, progress)
    measured = _measured(model, images, model.logits[: len(images)], answers)
    wanted = len(model.images.validation)
    while not is_settled(measured, limits) and (
        measured.images < wanted or is_open(measured, limits)
    ):
        more = wanted if measured.images < wanted else 2 * measured.images
        images, logits = model.reserve.first(more, progress)
        if not (added := images[measured.images :]):
            break
        answers = np.concatenate([answers, _answers(file, target, added, progress)])
        measured = _measured(model, images, logits, answers)
    return measured


def _answers(file: AskedFile, target: Target, images: Sequence[Path], progress: Progress) -> Floats:
    with progress.stage(f"check {target}", len(images)) as tick:
        return file.ask(images, tick)


def _measured(model: FloatModel, images: Sequence[Path], logits: Floats, answers: Floats) -> Parity:
    output = model.source.output
    measured = parity.compare(logits, answers, output)
    measured = parity.with_own_pixels(measured, model.own, logits, answers, output)
    classes = None if model.classes is None else [model.classes[image] for image in images]
    return parity.with_drop(measured, logits, answers, classes)
