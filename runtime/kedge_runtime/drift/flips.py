"""Pictures that the two sides answer differently, by how sure the original was of them.

A flip where the original hesitates costs little; one where it was sure is a fault to look at.
"""

import numpy as np

from kedge_runtime.drift import report
from kedge_runtime.drift.evidence import Evidence
from kedge_runtime.drift.rows import NONE

# Of the original's margin, 0..1: most flips are where it hesitates, so the bins are finer there.
EDGES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
MOST = 100


def flips(evidence: Evidence) -> report.Flips:
    """Return all flips by margin, and those listed of which the original was surest."""
    flipped = evidence.flipped
    margins = evidence.rows["original"]["margin"]
    # The bins hold their lower edge, the last one both.
    places = np.clip(np.searchsorted(EDGES, margins, side="right") - 1, 0, len(EDGES) - 2)
    counts, among = (np.bincount(x, minlength=len(EDGES) - 1) for x in (places, places[flipped]))
    bins = tuple(
        report.MarginBin(low, high, int(count), int(found))
        for low, high, count, found in zip(EDGES, EDGES[1:], counts, among, strict=False)
    )
    which = np.flatnonzero(flipped)
    surest = which[np.argsort(-margins[which], kind="stable")][:MOST]
    return report.Flips(int(flipped.sum()), bins, tuple(_flip(evidence, i) for i in surest))


def _flip(evidence: Evidence, i: int) -> report.Flip:
    true = evidence.true
    return report.Flip(
        image=evidence.names[int(evidence.rows["picture"][i])],
        original=_side(evidence, "original", i),
        artefact=_side(evidence, "artefact", i),
        truth=None if true is None else evidence.label(int(true[i])).name,
    )


def _side(evidence: Evidence, side: str, i: int) -> report.Side:
    found = evidence.rows[side][i]
    margin = float(found["margin"])
    if evidence.multi_label:
        given = tuple(evidence.label(int(k)).name for k in found["top"] if k != NONE)
        return report.Side(None, margin, report.Labels(int(found["labels"]), given))
    best = evidence.prediction(int(found["top"][0]), float(found["confidence"]))
    return report.Side(best, margin)
