"""What is kept of a picture: a few numbers, so that 50 000 pictures take some megabytes.

A row has the original's answer, the artefact's, and how far their outputs are apart. Every figure
of a report is computed from all rows in the order of the pictures, so it is the same to the last
bit however the pictures were divided among processes, machines or days.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Flags, Floats
from kedge_runtime.artefact.contract import Output
from kedge_runtime.classify import outputs as head
from kedge_runtime.drift import metrics

TOP = 5
Rows = NDArray[np.void]

# `top`: the best classes as indices of the labels, -1 for the background, NONE where there are
# fewer classes; `margin`: best probability minus the second; `entropy`: normalised, 0..1.
# Of independent classes, `top`: those that belong to the answer, first those that the other side
# doesn't give; `labels`: how many belong to it; `margin`: how near any is to its threshold.
ANSWER = np.dtype(
    [
        ("top", "<i4", TOP),
        ("confidence", "<f8"),
        ("margin", "<f8"),
        ("entropy", "<f8"),
        ("labels", "<i4"),
    ]
)
NONE = -2
SIDES = ("original", "artefact")
DISTANCES = ("signal", "noise", "cosine", "max_error", "mean_error")
# `picture`: its index in the sorted folder. `kl` in nats; `signal` and `noise`: the sums of the
# squared reference outputs and of the squared differences; `cosine` -1..1; the errors are absolute
# differences of the outputs. NaN where the two sides' outputs are of different kinds. `changed`:
# whether the sets of independent classes differ.
ROW = np.dtype(
    [
        ("picture", "<i8"),
        ("original", ANSWER),
        ("artefact", ANSWER),
        ("kl", "<f8"),
        ("signal", "<f8"),
        ("noise", "<f8"),
        ("cosine", "<f8"),
        ("max_error", "<f8"),
        ("mean_error", "<f8"),
        ("changed", "?"),
    ]
)


def check(rows: Rows, labels: int, *, alike: bool) -> None:
    """Raise ValueError for rows that `row` can't have given for so many `labels`.

    `alike`: whether the outputs are of one kind on both sides.
    """
    distances = np.stack([rows[name] for name in DISTANCES])
    numbers = [rows[side][name] for side in SIDES for name in ("confidence", "margin", "entropy")]
    if not np.isfinite([rows["kl"], *numbers]).all():
        raise ValueError("its numbers are not finite")
    if not (np.isfinite(distances) if alike else np.isnan(distances)).all():
        raise ValueError("its distances are of other outputs")
    for answers in (rows[side] for side in SIDES):
        if not ((answers["top"] >= NONE) & (answers["top"] < labels)).all():
            raise ValueError("its classes are not among the labels")
        if (answers["labels"] < 0).any():
            raise ValueError("fewer labels than none")


def row(picture: int, original: "Side", artefact: "Side") -> Rows:
    """Return one row, [1], of what both sides gave for a picture."""
    probabilities = [head.probabilities(*side) for side in (original, artefact)]
    outputs, multi_label = (original[1], artefact[1]), original[1].multi_label
    changed = False
    if multi_label:
        sets = [head.label_sets(p, o) for p, o in zip(probabilities, outputs, strict=True)]
        answers = list(map(independent, probabilities, outputs, sets, reversed(sets)))
        changed = not np.array_equal(sets[0], sets[1])
    else:
        answers = list(map(answer, probabilities, outputs))
    kl = metrics.kl(*(p[None] for p in probabilities), multi_label=multi_label)
    return np.array([(picture, *answers, kl, *_distances(original, artefact), changed)], ROW)


# A model's numbers for one picture, float32 [outputs], and what they mean.
Side = tuple[Floats, Output]


def answer(probabilities: Floats, output: Output) -> tuple[Any, ...]:
    """Return the fields of ANSWER for float32 [outputs]."""
    order = head.descending(probabilities, TOP)
    top = np.full(TOP, NONE)
    top[: len(order)] = order - output.label_offset
    values = probabilities[order].astype(float)
    margin = values[0] - (values[1] if len(values) > 1 else 0.0)
    return top, values[0], margin, head.entropy(probabilities), 0


def independent(probabilities: Floats, output: Output, own: Flags, other: Flags) -> tuple[Any, ...]:
    """Return the fields of ANSWER for independent classes.

    `own` and `other`: which of them this side and the other one give, [outputs].
    """
    given = np.flatnonzero(own)
    order = given[np.lexsort((-probabilities[given], other[given]))][:TOP]
    top = np.full(TOP, NONE)
    top[: len(order)] = order - output.label_offset
    limits = head.limits(output.thresholds, output.label_offset)
    margin = np.abs(probabilities - limits).min()
    spread = head.mean_binary_entropy(probabilities)
    return top, probabilities.max(), margin, spread, len(given)


def _distances(original: Side, artefact: Side) -> tuple[float, ...]:
    if original[1].kind != artefact[1].kind:
        return (float("nan"),) * len(DISTANCES)
    a, b = (side[0].astype(np.float64) for side in (original, artefact))
    error = np.abs(a - b)
    cosine = metrics.cosine(original[0][None], artefact[0][None])
    return float(a @ a), float(error @ error), cosine, float(error.max()), float(error.mean())
