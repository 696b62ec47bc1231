"""Ask the float model once: its answers on kedge's pixels and on those of the user's pipeline.

`Reserve` holds more validation images, for targets that the first ones leave undecided.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kedge_convert import doubts, own_pixels, sealing
from kedge_convert.fitting import better
from kedge_convert.images import Photos, tensors, ticking
from kedge_convert.job import Job
from kedge_convert.load import output_activation
from kedge_convert.quantise import search
from kedge_convert.quantise.candidates import Sources
from kedge_convert.quantise.search import Search
from kedge_convert.source import Source
from kedge_convert.worker.progress import Progress
from kedge_runtime.arrays import Floats
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
    photos: Photos
    logits: Floats

    def __post_init__(self) -> None:
        """Set the limit of the growth."""
        self._most = FOLD * len(self.photos.check)

    def first(self, count: int, progress: Progress) -> tuple[Sequence[Path], Floats]:
        """Return so many images and their logits, or as many as the folder and FOLD allow."""
        missing = min(count, self._most) - len(self.photos.check)
        if missing > 0 and self.photos.more:
            self._grow(missing, progress)
        return self.photos.check[:count], self.logits[:count]

    def _grow(self, missing: int, progress: Progress) -> None:
        with progress.stage("read more pictures", missing) as tick:
            photos = self.photos.enlarged(missing, tick)
        added = photos.check[len(self.photos.check) :]
        self.photos = photos
        if not added:
            return
        with progress.stage("float original on more pictures", len(added)) as tick:
            logits = self.source.logits(ticking(tensors(added, self.source.input), tick))
        self.logits = np.concatenate([self.logits, logits])


@dataclass(frozen=True)
class FloatModel:
    """The float original's answers, asked once and held against every target.

    `classes`: true ones of the pictures to check with, and of those that may be added to them,
    where the drop is limited and something tells them. `reserve`: the pictures that may be added.
    `own_logits`: the answers to the check images as the user's own pipeline loads them, [images,
    classes]; None where no library loads images so.
    """

    source: Source
    photos: Photos
    logits: Floats
    golden: list[bytes]
    golden_logits: Floats
    reserve: Reserve
    classes: dict[Path, int] | None = None
    sources: Sources | None = None
    search: Search | None = None
    own_logits: Floats | None = None


def ask(source: Source, photos: Photos, progress: Progress) -> FloatModel:
    """Run the float original over the check pictures and choose the golden ones among them."""
    with progress.stage("float original", len(photos.check)) as tick:
        logits = source.logits(ticking(tensors(photos.check, source.input), tick))
    output_activation.check_answers(logits, source.output, source.name, told=source.told)
    doubts.refuse_answers(logits, source.name)
    for doubt in doubts.doubts(source, photos, logits):
        progress.say(doubt)
    golden = golden_images(source.input.geometry, photos.check, logits)
    answers = sealing.reference_answers(source, golden)
    reserve = Reserve(source, photos, logits)
    own = _on_own_pixels(source, photos, progress)
    return FloatModel(source, photos, logits, golden, answers, reserve, own_logits=own)


def _on_own_pixels(source: Source, photos: Photos, progress: Progress) -> Floats | None:
    """Return the float model's answers to what the user's own pipeline makes of the images."""
    if source.output.kind == "features":
        return None
    tensors = own_pixels.own_tensors(photos.check, source.input)
    if tensors is None:
        return None
    with progress.stage("float model on own pixels", len(photos.check)) as tick:
        return source.logits(ticking(tensors, tick))


def judged_by(job: Job, original: FloatModel) -> FloatModel:
    """Add the true classes of the check pictures if the drop in accuracy matters.

    Folders tell one class of a picture: of independent classes they tell nothing.
    """
    if job.limits.get("drop") is None or original.source.output.multi_label:
        return original
    photos = (*original.photos.check, *original.photos.more)
    classes = search.true_classes(photos, original.source)
    known = None if classes is None else dict(zip(photos, classes, strict=True))
    return replace(original, classes=known)


def refuse_other_input(job: Job, original: FloatModel, progress: Progress) -> None:
    """Raise UsageError where the check pictures show that another input fits the model better."""
    source, paths = original.source, original.photos.check
    classes = better.true_outputs(paths, source)
    if job.force_input or source.untrained or classes is None:
        return
    with progress.stage("check input"), quiet():
        found = better.better_input(source, paths, classes)
    if found:
        raise UsageError(found.line)
