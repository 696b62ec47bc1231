"""Hold a folder of images or a video against the sketch of an artefact."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kedge_runtime.arrays import Pixels
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.errors import ImageError
from kedge_runtime.field.accuracy import AccuracyEstimate, estimate
from kedge_runtime.field.evidence import FieldTests
from kedge_runtime.field.finding import FieldFinding, describe
from kedge_runtime.field.monitor import sketch_in
from kedge_runtime.field.sketching import look_at
from kedge_runtime.image.folder import find_images
from kedge_runtime.streams.sources import open_video

# Frames of a video between two that count, at least: half a minute at 10 frames a second is one
# scene, and every frame of it would be called strange together.
EVERY = 10
Tick = Callable[[], None]


class FieldImage(NamedTuple):
    """A named image: a file, or a frame's pixels."""

    name: str
    image: Path | Pixels


@dataclass(frozen=True)
class Named:
    """A finding with the names of its images: where it began, where it was noticed, a look at."""

    finding: FieldFinding
    since: str
    at: str
    look: tuple[str, ...]


@dataclass(frozen=True)
class FieldReport:
    """What became of the images. `unread`: those that can't be read, with the reason.

    `accuracy`: the estimate over the last images (evidence.MEMORY of them), None for few.
    """

    images: int
    findings: tuple[Named, ...]
    accuracy: AccuracyEstimate | None
    unread: tuple[str, ...]

    @property
    def is_alarm(self) -> bool:
        """Whether something is wrong: a notice about the mix of classes is no alarm."""
        return any(named.finding.kind == "alarm" for named in self.findings)


def items(place: Path, option: str) -> list[FieldImage] | Iterator[FieldImage]:
    """Return the images of a folder, sorted, or the frames of a video. Raises UsageError."""
    if place.is_file():
        return _frames(place)
    paths = find_images(place, option)
    return [FieldImage(path.relative_to(place).as_posix(), path) for path in paths]


def _frames(video: Path) -> Iterator[FieldImage]:
    for frame in open_video(video, EVERY):
        yield FieldImage(f"{frame.seconds:.1f} s", frame.pixels)


def check(
    classifier: Classifier, images: Iterable[FieldImage], tick: Tick = lambda: None
) -> FieldReport:
    """Hold images against the artefact's sketch, one after the other.

    Raises ArtefactError for an artefact without a sketch, EngineError.
    """
    sketch = sketch_in(classifier.artefact)
    evidence, names = FieldTests(sketch), list[str]()
    found, unread = list[Named](), list[str]()
    for item in images:
        tick()
        try:
            frame = look_at(classifier, classifier.preprocessor.fit(classifier.read(item.image)))
        except ImageError as error:
            unread.append(f"{item.name}: {error}")
            continue
        names.append(item.name)
        for turn in evidence.add(frame):
            found.append(_named(describe(evidence, turn, classifier.classes.labels), names))
    last = evidence.remembered(0) % len(evidence.memory.times)
    accuracy = estimate(sketch, evidence.memory.values[last])
    return FieldReport(len(names), tuple(found), accuracy, tuple(unread))


def _named(finding: FieldFinding, names: list[str]) -> Named:
    look = tuple(names[frame] for frame in finding.look)
    return Named(finding, names[finding.since], names[finding.at], look)
