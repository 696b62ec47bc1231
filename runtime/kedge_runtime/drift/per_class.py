"""Which classes drifted? A test each, and control of what many tests find by chance.

With labels the pictures of a true class are tested as all are: lost against gained, exactly
(McNemar). Without, the pictures of a class by the original's answer: do more of them flip than of
the others, exactly (Fisher, one-sided)? The p-values are adjusted by Benjamini and Hochberg, so
that of the classes called drifted a share of LEVEL is expected to be so by chance.
"""

from dataclasses import dataclass

import numpy as np

from kedge_runtime.drift import report
from kedge_runtime.drift.evidence import Evidence
from kedge_runtime.drift.intervals import (
    Flags,
    Indices,
    benjamini_hochberg,
    hypergeometric_tail,
    mcnemar,
)

LEVEL = 0.05


@dataclass(frozen=True)
class _Tested:
    """Counts of pictures and the p-value of each class that is present, all [classes]."""

    classes: Indices
    pictures: Indices
    flips: Indices
    lost: Indices | None
    gained: Indices | None
    p: list[float]


def per_class(evidence: Evidence) -> report.PerClass:
    """Return every class that any picture is of, the most suspicious first."""
    tested = _by_flips(evidence) if evidence.true is None else _by_truth(evidence, evidence.true)
    q = benjamini_hochberg(tested.p)
    drifts = [_drift(evidence, tested, i, float(q[i])) for i in range(len(q))]
    drifts.sort(key=lambda drift: (drift.p, drift.index))
    by = "original" if evidence.true is None else "truth"
    return report.PerClass(by, LEVEL, len(q), int((q <= LEVEL).sum()), tuple(drifts))


def _by_truth(evidence: Evidence, true: Indices) -> _Tested:
    classes, places = np.unique(true, return_inverse=True)
    original, artefact = (evidence.best(side) == true for side in ("original", "artefact"))
    lost, gained = (
        _counts(places, flags) for flags in (original & ~artefact, artefact & ~original)
    )
    p = [mcnemar(int(b), int(c)) for b, c in zip(lost, gained, strict=True)]
    flips = _counts(places, evidence.flipped)
    return _Tested(classes, np.bincount(places), flips, lost, gained, p)


def _by_flips(evidence: Evidence) -> _Tested:
    classes, places = np.unique(evidence.best("original"), return_inverse=True)
    pictures, flips = np.bincount(places), _counts(places, evidence.flipped)
    total, marked = int(pictures.sum()), int(flips.sum())
    p = [
        hypergeometric_tail(int(drawn), marked, total, int(found))
        for drawn, found in zip(pictures, flips, strict=True)
    ]
    return _Tested(classes, pictures, flips, None, None, p)


def _counts(places: Indices, flags: Flags) -> Indices:
    """Return how many of each class are flagged; every class is in `places`."""
    return np.bincount(places[flags], minlength=int(places.max()) + 1)


def _drift(evidence: Evidence, tested: _Tested, i: int, q: float) -> report.ClassDrift:
    label = evidence.label(int(tested.classes[i]))
    return report.ClassDrift(
        index=int(tested.classes[i]),
        id=label.id,
        name=label.name,
        pictures=int(tested.pictures[i]),
        flips=int(tested.flips[i]),
        lost=None if tested.lost is None else int(tested.lost[i]),
        gained=None if tested.gained is None else int(tested.gained[i]),
        p=tested.p[i],
        q=q,
    )
