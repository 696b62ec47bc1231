"""Sketch what a model saw in calibration and validation: distributions, nothing of the images.

The sketch is a member of the sealed file, beside the golden set. A device holds its frames against
it without a single image or label.
"""

import io
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Array, Doubles, Floats, Indices
from kedge_runtime.errors import ArtefactError, about
from kedge_runtime.field.measure import CONFIDENCE, STATISTICS
from kedge_runtime.modelfile.archives import read_arrays

BINS = 32
# A class of at least so many images is a group of its own; of fewer, ranks would say nothing.
GROUP = 25
MAX_GROUPS = 16
MAX_IMAGES = 1_000_000
MAX_OUTPUTS = 100_000
# Fewer images can't tell a fault from chance within hundreds of frames.
LEAST = 20


@dataclass(frozen=True)
class Sketch:
    """The distributions of some images' statistics.

    `edges`: float32 [statistics, BINS + 1], quantiles from the least value to the largest.
    `counts`: uint32 [groups, statistics, BINS]; the last group is of all classes without their own.
    `groups`: int64 [groups - 1], the output of each other group. `classes`: uint32 [outputs], how
    often each was predicted. `temperature`: float32 [1], the contract's when it was made.
    `accuracy`: float32 [3]: the mean confidence; the share of right answers; the confidence that as
    large a share of the images exceeds. All but the first are NaN without ground truth.
    """

    edges: Floats
    counts: NDArray[np.uint32]
    groups: Indices
    classes: NDArray[np.uint32]
    temperature: Floats
    accuracy: Floats

    @property
    def images(self) -> int:
        """The number of images."""
        return int(self.counts[:, 0].sum())

    def group(self, predicted: int) -> int:
        """Return the group of a predicted output."""
        found = np.flatnonzero(self.groups == predicted)
        return int(found[0]) if found.size else len(self.groups)

    def bins(self, row: Floats) -> Indices:
        """Return the bin of each statistic of a frame, [statistics]."""
        return np.asarray((self.edges[:, 1:-1] <= row[:, None]).sum(axis=1), np.int64)

    def to_bytes(self) -> bytes:
        """Return an .npz archive; the same sketch gives the same bytes."""
        file = io.BytesIO()
        np.savez_compressed(file, **{name: getattr(self, name) for name in _FIELDS})
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Sketch":
        """Read what `to_bytes` wrote. Raises ArtefactError when it is anything else."""
        with about("the sketch is damaged"):
            arrays = read_arrays(content)
        if arrays.keys() != set(_FIELDS):
            raise ArtefactError("the sketch is damaged (other members); convert again")
        return _check(cls(**arrays))


_FIELDS = tuple(field.name for field in fields(Sketch))


@dataclass(frozen=True)
class Seen:
    """What was measured of some images.

    `rows`: float32 [images, statistics]. `predicted`: int64 [images], the best outputs. `right`:
    whether each answer is right, [images], or None without ground truth.
    """

    rows: Floats
    predicted: Indices
    right: Array | None = None


def sketch_of(seen: Seen, outputs: int, temperature: float = 1.0) -> Sketch:
    """Return the sketch of measured images; `outputs`: of the model."""
    quantiles = np.quantile(seen.rows, np.linspace(0, 1, BINS + 1), axis=0)
    edges = np.ascontiguousarray(quantiles.T, np.float32)
    classes = np.bincount(seen.predicted, minlength=outputs).astype(np.uint32)
    large = np.flatnonzero(classes >= GROUP)
    largest = large[np.argsort(-classes[large].astype(np.int64), kind="stable")][: MAX_GROUPS - 1]
    groups = np.sort(largest).astype(np.int64)
    counts = np.zeros((len(groups) + 1, len(STATISTICS), BINS), np.uint32)
    empty = Sketch(edges, counts, groups, classes, *_answers(seen, temperature))
    for row, predicted in zip(seen.rows, seen.predicted, strict=True):
        counts[empty.group(int(predicted)), np.arange(len(STATISTICS)), empty.bins(row)] += 1
    return empty


def _answers(seen: Seen, temperature: float) -> tuple[Floats, Floats]:
    """Return the fields `temperature` and `accuracy`."""
    confidence, right, threshold = seen.rows[:, CONFIDENCE], np.nan, np.nan
    if seen.right is not None:
        right = float(np.mean(seen.right))
        threshold = float(np.quantile(confidence, 1 - right))
    figures = (confidence.mean(dtype=np.float64), right, threshold)
    return np.array([temperature], np.float32), np.array(figures, np.float32)


# Field -> numpy's dtype and the number of dimensions.
_SHAPES = {
    "edges": ("<f4", 2),
    "counts": ("<u4", 3),
    "groups": ("<i8", 1),
    "classes": ("<u4", 1),
    "temperature": ("<f4", 1),
    "accuracy": ("<f4", 1),
}


def _check(sketch: Sketch) -> Sketch:
    """Return the sketch. Raises ArtefactError where its arrays don't fit one another."""
    for name, (dtype, dimensions) in _SHAPES.items():
        array = getattr(sketch, name)
        if array.dtype != np.dtype(dtype) or array.ndim != dimensions:
            raise _damaged(f"{name} is {array.dtype} {array.shape}")
    rows, groups = len(STATISTICS), len(sketch.groups) + 1
    shapes = {
        "edges": (rows, BINS + 1),
        "counts": (groups, rows, BINS),
        "temperature": (1,),
        "accuracy": (3,),
    }
    for name, shape in shapes.items():
        if getattr(sketch, name).shape != shape:
            raise _damaged(f"{name} is {getattr(sketch, name).shape}, not {shape}")
    if groups > MAX_GROUPS or len(sketch.classes) > MAX_OUTPUTS:
        raise _damaged(f"{groups} groups of {len(sketch.classes)} outputs")
    _check_numbers(sketch)
    return sketch


def _check_numbers(sketch: Sketch) -> None:
    images = sketch.counts.astype(np.uint64).sum(axis=2)
    faults = {
        "edges": not (np.isfinite(sketch.edges).all() and (np.diff(sketch.edges) >= 0).all()),
        "counts": (images != images[:, :1]).any() or not 0 < images[:, 0].sum() <= MAX_IMAGES,
        "groups": (np.diff(sketch.groups) <= 0).any() or not _within(sketch.groups, sketch.classes),
        "classes": int(sketch.classes.astype(np.uint64).sum()) > MAX_IMAGES * len(sketch.classes),
        "temperature": not 0 < sketch.temperature[0] < np.inf,
        "accuracy": not _shares(sketch.accuracy),
    }
    if wrong := [name for name, fault in faults.items() if fault]:
        raise _damaged(f"{wrong[0]} has impossible numbers")


def _within(groups: Indices, classes: Array) -> bool:
    return bool(((groups >= 0) & (groups < len(classes))).all())


def _shares(accuracy: Floats) -> bool:
    """Whether the figures are shares; all but the first may be NaN."""
    known = accuracy[:1] if np.isnan(accuracy[1:]).all() else accuracy
    return bool(((known >= 0) & (known <= 1)).all())


def _damaged(reason: str) -> ArtefactError:
    return ArtefactError(f"the sketch is damaged ({reason}); convert again")


def expected(sketch: Sketch, output: int) -> float:
    """Return the share of calibration images in which an output was predicted, 0..1."""
    return float(sketch.classes[output] / sketch.images)


def median(sketch: Sketch, statistic: int) -> float:
    """Return the median of a statistic."""
    middle: Doubles = sketch.edges[statistic].astype(np.float64)
    return float(middle[BINS // 2])
