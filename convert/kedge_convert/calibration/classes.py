"""Check which classes the images show: by folders and names, and by the model's answers."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kedge_convert.calibration.finding import CalibrationFinding, Status
from kedge_convert.settle import class_folders
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Label, Output
from kedge_runtime.drift.statistics import wilson
from kedge_runtime.drift.truth import Truth, read_truth
from kedge_runtime.errors import UsageError

SHOWN = 5
# The classes of a folder are uneven if one has so many times the images of another.
UNEVEN = 10
# Of many classes even wrong pixels leave more than a guess: so few right answers are a fault.
FEW_RIGHT = 0.1


def ground_truth(paths: Sequence[Path], labels: tuple[Label, ...]) -> Truth | None:
    """Return the class of each image by folders or names; None where they don't name classes."""
    try:
        return read_truth(paths, labels) if labels else None
    except UsageError:
        return None


def folders(folder: Path, paths: Sequence[Path]) -> CalibrationFinding:
    """Return how many images each class folder has, where no labels are known."""
    names = class_folders(str(folder)) or ()
    if len(names) < 2:
        result = "the folder has no class folders"
        remedy = "give --model, whose answers tell which classes are missing"
        return CalibrationFinding("classes", "open", result, remedy)
    counts = Counter(path.relative_to(folder).parts[0] for path in paths)
    return _balance({name: counts[name] for name in names})


def _balance(counts: dict[str, int]) -> CalibrationFinding:
    least, most = min(counts.values()), max(counts.values())
    each = f"{least}" if least == most else f"{least} to {most}"
    result = f"{len(counts)} classes of {each} usable images"
    few = [name for name, count in counts.items() if count * UNEVEN < most]
    if not few:
        return CalibrationFinding("classes", "ok", result)
    remedy = f"add images of {listed(few)}: ranges and weights are fitted to what is there"
    return CalibrationFinding("classes", "note", result, remedy)


def missing(truth: Truth, labels: tuple[Label, ...], wanted: int) -> CalibrationFinding:
    """Return which of the model's classes have no image.

    It is a problem where each class could have one of the `wanted` calibration images.
    """
    present = Counter(truth.values())
    absent = [label.name for i, label in enumerate(labels) if not present[i]]
    if not absent:
        return _balance({label.name: present[i] for i, label in enumerate(labels)})
    status: Status = "problem" if len(labels) <= wanted else "note"
    result = f"{len(absent)} of {len(labels)} classes have no image: {listed(absent)}"
    return CalibrationFinding("classes", status, result, "add images of these classes")


def predicted(
    logits: Floats,
    paths: Sequence[Path],
    truth: Truth | None,
    about: tuple[Output, Sequence[Label]],
) -> CalibrationFinding:
    """Return which classes the model sees, and with ground truth how often it is right.

    `logits`: [images, outputs], of `paths`. `about`: the output and the labels of the model.
    """
    output, labels = about
    best = logits.argmax(axis=1) - output.label_offset
    seen, total = set(best.tolist()), logits.shape[1] - output.label_offset
    result = f"the model sees {len(seen - {-1})} of {total} classes in {len(paths)} images"
    if truth is not None:
        right = int(np.sum(best == [truth[path] for path in paths]))
        low, high = (float(each) for each in wilson(right, len(paths)))
        result += f"; right in {right / len(paths):.1%} ({low:.1%} to {high:.1%})"
        if _by_chance(low, high, total):
            remedy = "check --preprocess and the labels: `kedge fit-input` finds what fits"
            return CalibrationFinding("answers", "problem", result, remedy)
    unseen = [label.name for i, label in enumerate(labels) if i not in seen]
    if unseen and total <= len(paths) and truth is None:
        return CalibrationFinding(
            "answers", "note", f"{result}; not {listed(unseen)}", "add images of these classes"
        )
    return CalibrationFinding("answers", "ok", result)


def _by_chance(low: float, high: float, total: int) -> bool:
    """Whether a share of right answers with this interval is no better than a guess of one class.

    So few images that a good share is possible, too, are no evidence.
    """
    guess = 1 / total
    return high < FEW_RIGHT or (low <= guess and high < (1 + guess) / 2)


def listed(names: Sequence[str]) -> str:
    """Return e.g. `cat, dog and 4 more`."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
