"""Read labelled images, leave out those that something else used, and run an artefact on them."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kedge_runtime.arrays import Flags, Floats, Indices, Pixels
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.provenance import Provenance, calibration_mark
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import check_finite
from kedge_runtime.confidence.fit import LabelledOutputs
from kedge_runtime.drift.journal import content_digest
from kedge_runtime.drift.truth import label_sets_by, truth_by
from kedge_runtime.errors import ImageError, UsageError, counted
from kedge_runtime.image.decode import read_bytes
from kedge_runtime.image.folder import find_images
from kedge_runtime.output import quiet

# Why an image is left out, in the words of the report.
CALIBRATION, VALIDATION = "calibration images", "validation images"
REPEATED, UNREADABLE = "repeated images", "unreadable images"

Tick = Callable[[], None]
Look = Callable[[Pixels], None]


@dataclass
class ImageChoice:
    """Chooses labelled images: each once, and none that something else used.

    `reasons`: why an image is left out, by the mark of its file.
    """

    reasons: dict[str, str]

    @classmethod
    def beside(cls, provenance: Provenance) -> "ImageChoice":
        """Return a choice that leaves out what calibrated and validated an artefact."""
        reasons = dict.fromkeys(provenance.validation_images, VALIDATION)
        return cls(reasons | dict.fromkeys(provenance.calibration_images, CALIBRATION))

    def refusal(self, mark: str) -> str:
        """Return why an image is left out; empty where nothing used it so far."""
        return self.reasons.get(mark, "")

    def take(self, mark: str) -> None:
        """Choose an image; equal ones are left out from now on."""
        self.reasons[mark] = REPEATED


@dataclass(frozen=True)
class LabelledImages:
    """Images with ground truth; `truth` as of LabelledOutputs."""

    paths: tuple[Path, ...]
    truth: Indices | Flags


@dataclass(frozen=True)
class Asked:
    """The outputs for the images that nothing else used, and how many were left out, by reason."""

    labelled: LabelledOutputs
    left_out: dict[str, int]

    def lines(self) -> Iterator[str]:
        """Yield a line for each reason."""
        for reason, count in sorted(self.left_out.items()):
            yield f"left out {counted(count, 'image')}: {reason}"


def read_labels(folder: Path, how: str, contract: Contract, count: int) -> LabelledImages:
    """Return up to `count` images of a folder, drawn at random, with their true outputs.

    `how`: a value of --truth; for independent classes a table. Raises UsageError without truth.
    """
    paths = find_images(folder, "--images")
    drawn = np.random.default_rng(0).permutation(len(paths))[:count]
    if contract.output.multi_label:
        truth: Indices | Flags = _sets(paths, how, contract)
    else:
        truth = _classes(paths, how, contract)
    return LabelledImages(tuple(paths[i] for i in drawn), truth[drawn])


def _classes(paths: list[Path], how: str, contract: Contract) -> Indices:
    truth = truth_by(how, paths, contract.labels)
    if truth is None:
        raise UsageError(
            f"--images: {paths[0]}: no ground truth: name the folders like the classes, or give "
            "--truth a table file,label"
        )
    return np.array([truth[path] for path in paths]) + contract.output.label_offset


def _sets(paths: list[Path], how: str, contract: Contract) -> Flags:
    if how in ("auto", "none", "synset", "folders"):
        raise UsageError(
            f"--truth: got {how}, but an image may have several of the classes: give a table "
            "file,label with a row for each label"
        )
    sets, offset = label_sets_by(Path(how), paths, contract.labels), contract.output.label_offset
    flags = np.zeros((len(paths), len(contract.labels) + offset), np.bool_)
    for row, path in zip(flags, paths, strict=True):
        row[[index + offset for index in sets[path]]] = True
    return flags


def ask(
    classifier: Classifier,
    images: LabelledImages,
    tick: Tick = lambda: None,
    look: Look = lambda fitted: None,
) -> Asked:
    """Run an artefact on the images that neither calibrated nor validated it.

    `look` gets each of them as the model does, RGB uint8 [h, w, 3] of its size.
    Raises UsageError where none is left, EngineError.
    """
    choice = ImageChoice.beside(classifier.contract.provenance)
    rows, chosen, left_out = dict[str, Floats](), list[int](), Counter[str]()
    for i, path in enumerate(images.paths):
        tick()
        try:
            content = read_bytes(path)
            mark = calibration_mark(content_digest(content).tobytes())
            if reason := choice.refusal(mark):
                left_out[reason] += 1
                continue
            fitted = _fitted(classifier, content)
            rows[mark] = _outputs(classifier, fitted)
            choice.take(mark)
            look(fitted)
        except ImageError:
            left_out[UNREADABLE] += 1
        else:
            chosen.append(i)
    if not rows:
        raise UsageError(f"--images: no image is left ({', '.join(left_out)}); give others")
    outputs = np.stack(list(rows.values()))
    return Asked(LabelledOutputs(outputs, images.truth[chosen], tuple(rows)), dict(left_out))


def _fitted(classifier: Classifier, content: bytes) -> Pixels:
    plan = classifier.preprocessor
    with quiet():  # OpenCV prints about damaged images
        return plan.fit(plan.read(content))


def _outputs(classifier: Classifier, fitted: Pixels) -> Floats:
    tensor = classifier.preprocessor.look_up(fitted)
    with quiet():
        return check_finite(classifier.numbers(classifier.engine.run(tensor)))
