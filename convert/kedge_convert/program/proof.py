"""Compare an imported model with the program that it was made from."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.output import quiet

# Of the largest answer: sums in another order differ by 3e-6 and less, a wrong operator by more.
TOLERANCE = 1e-5


# At least this share of the answers must be finite to prove anything.
FINITE = 0.5


def is_same(
    content: ModelContent, model: Any, tensors: Iterable[Floats], planar: bool = False
) -> bool:
    """Whether a model gives the program's answers to tensors, float32 [1, h, w, c] each.

    `planar`: whether the program takes [1, c, h, w]. Answers of which more than half are not finite
    prove nothing. Raises EngineError and ArtefactError for a program that does not run.
    """
    theirs, ours = _answers(content, model, tensors, planar)
    return _share_of_finite(theirs) >= FINITE and _are_equal(theirs, ours)


def is_same_on_noise(
    content: ModelContent, model: Any, shape: tuple[int, ...], planar: bool = False
) -> bool:
    """Whether a model gives the program's answers to noise; `shape`: of one image, [h, w, c].

    A program may have no finite answers to some ranges, as a fractional power of negative numbers
    has none: then those of another range must be equal, too.
    """
    for ranges in RANGES:
        theirs, ours = _answers(content, model, noise(shape, ranges), planar)
        if not _are_equal(theirs, ours):
            return False
        if _share_of_finite(theirs) >= FINITE:
            return True
    return False


def _answers(
    content: ModelContent, model: Any, tensors: Iterable[Floats], planar: bool
) -> tuple[Floats, Floats]:
    """Return the answers of both, float32 [tensors, numbers]."""
    images = list(tensors)
    with quiet():
        engine = open_engine(content)
        theirs = np.stack([_flat(engine.run(_planar(each) if planar else each)) for each in images])
        ours = np.asarray(model(np.concatenate(images), training=False), np.float32)
    return theirs, ours.reshape(theirs.shape)


def _share_of_finite(answers: Floats) -> float:
    return float(np.isfinite(answers).mean())


def _are_equal(theirs: Floats, ours: Floats) -> bool:
    """Whether numbers are equal to TOLERANCE; what is not finite is the same at equal places."""
    finite = np.isfinite(theirs)
    if not np.array_equal(theirs[~finite], ours[~finite], equal_nan=True):
        return False
    theirs, ours = theirs[finite], ours[finite]
    # Written so that a NaN fails.
    return not theirs.size or bool(np.abs(theirs - ours).max() <= TOLERANCE * np.abs(theirs).max())


BYTE = 255
# Inputs of an unknown range: normalised ones and bytes, each twice; if few answers are finite,
# positive ones, then those between the limits of logarithms and arcs.
RANGES: tuple[tuple[tuple[float, float], ...], ...] = (
    ((-1, 1), (0, BYTE), (-1, 1), (0, BYTE)),
    ((1, BYTE), (1, 3), (1, BYTE), (1, 3)),
    ((0.05, 0.95), (0.05, 0.95)),
)


def noise(shape: tuple[int, ...], ranges: Iterable[tuple[float, float]]) -> Iterator[Floats]:
    """Yield seeded noise, float32 [1, h, w, c], for each range; `shape`: of one image, [h, w, c].

    Bytes are whole numbers.
    """
    rng = np.random.default_rng(0)
    for low, high in ranges:
        values = rng.uniform(low, high, (1, *shape))
        yield (np.rint(values) if high == BYTE else values).astype(np.float32)


def _planar(images: Floats) -> Floats:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _flat(answers: Any) -> Floats:
    return np.asarray(answers, np.float32).reshape(-1)
