"""The float model's answers, asked once: on kedge's pixels and on those of the user's pipeline.

Every target is held against them.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from kedge_convert import degenerate, fitting, heads, own_pixels, sealing
from kedge_convert.job import Job
from kedge_convert.photos import Photos, tensors, ticking
from kedge_convert.progress import Progress
from kedge_convert.quantise import search
from kedge_convert.quantise.candidates import Sources
from kedge_convert.quantise.search import Search
from kedge_convert.reserve import Reserve
from kedge_convert.source import Source
from kedge_convert.toolkit import quiet
from kedge_runtime import golden_making
from kedge_runtime.errors import UsageError
from kedge_runtime.head import Floats


@dataclass(frozen=True)
class Original:
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


def ask(source: Source, photos: Photos, progress: Progress) -> Original:
    """Run the float original over the check pictures and choose the golden ones among them."""
    with progress.stage("float original", len(photos.check)) as tick:
        logits = source.logits(ticking(tensors(photos.check, source.input), tick))
    heads.check_answers(logits, source.output, source.name, told=source.told)
    degenerate.refuse_answers(logits, source.name)
    for doubt in degenerate.doubts(source, photos, logits):
        progress.say(doubt)
    golden = golden_making.golden_pictures(source.input.geometry, photos.check, logits)
    answers = sealing.reference_answers(source, golden)
    reserve = Reserve(source, photos, logits)
    own = _on_own_pixels(source, photos, progress)
    return Original(source, photos, logits, golden, answers, reserve, own_logits=own)


def _on_own_pixels(source: Source, photos: Photos, progress: Progress) -> Floats | None:
    """Return the float model's answers to what the user's own pipeline makes of the images."""
    if source.output.kind == "features":
        return None
    tensors = own_pixels.own_tensors(photos.check, source.input)
    if tensors is None:
        return None
    with progress.stage("float model on own pixels", len(photos.check)) as tick:
        return source.logits(ticking(tensors, tick))


def judged_by(job: Job, original: Original) -> Original:
    """Add the true classes of the check pictures if the drop in accuracy matters.

    Folders tell one class of a picture: of independent classes they tell nothing.
    """
    if job.limits.get("drop") is None or original.source.output.multi_label:
        return original
    photos = (*original.photos.check, *original.photos.more)
    classes = search.true_classes(photos, original.source)
    known = None if classes is None else dict(zip(photos, classes, strict=True))
    return replace(original, classes=known)


def refuse_other_input(job: Job, original: Original, progress: Progress) -> None:
    """Raise UsageError where the check pictures show that another input fits the model better."""
    source, paths = original.source, original.photos.check
    classes = fitting.true_outputs(paths, source)
    if job.force_input or source.untrained or classes is None:
        return
    with progress.stage("check input"), quiet():
        found = fitting.better_input(source, paths, classes)
    if found:
        raise UsageError(found.line)
