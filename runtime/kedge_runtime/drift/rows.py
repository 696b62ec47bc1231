"""Keep a few numbers of each image: 50 000 images take some megabytes.

A row has the reference's answer, the artefact's, and the distance of their outputs. Every figure of
a report is computed from all rows in the order of the images. So it is the same to the last bit,
however the images were divided among processes, machines or days.
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
# Of independent classes, `top`: the labels of the answer, first those that the other side lacks;
# `labels`: their number; `margin`: the least distance of a probability to its threshold.
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
SIDES = ("reference", "artefact")
DISTANCES = ("signal", "noise", "cosine", "max_error", "mean_error")
# `image`: its index in the sorted folder. `kl` in nats; `signal` and `noise`: the sums of the
# squared reference outputs and of the squared differences; `cosine` -1..1; the errors are absolute
# differences of the outputs. NaN where the two sides' outputs are of different kinds. `changed`:
# whether the sets of independent classes differ.
ROW = np.dtype(
    [
        ("image", "<i8"),
        ("reference", ANSWER),
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
    """Raise ValueError for rows that `row` can't have returned.

    `labels`: the number of classes; `alike`: whether both sides have outputs of one kind.
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
            raise ValueError("it has a negative number of labels")


def row(image: int, reference: "Outputs", artefact: "Outputs") -> Rows:
    """Return one row, [1], of both sides' outputs for an image."""
    probabilities = [head.probabilities(*side) for side in (reference, artefact)]
    outputs, multi_label = (reference[1], artefact[1]), reference[1].multi_label
    changed = False
    if multi_label:
        sets = [head.label_sets(p, o) for p, o in zip(probabilities, outputs, strict=True)]
        answers = list(map(independent, probabilities, outputs, sets, reversed(sets)))
        changed = not np.array_equal(sets[0], sets[1])
    else:
        answers = list(map(answer, probabilities, outputs))
    kl = metrics.kl(*(p[None] for p in probabilities), multi_label=multi_label)
    return np.array([(image, *answers, kl, *_distances(reference, artefact), changed)], ROW)


# A model's outputs for one image, float32 [outputs], and their description.
Outputs = tuple[Floats, Output]


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

    `own`, `other`: which of them this side and the other side answer, [outputs].
    """
    labels = np.flatnonzero(own)
    order = labels[np.lexsort((-probabilities[labels], other[labels]))][:TOP]
    top = np.full(TOP, NONE)
    top[: len(order)] = order - output.label_offset
    limits = head.limits(output.thresholds, output.label_offset)
    margin = np.abs(probabilities - limits).min()
    spread = head.mean_binary_entropy(probabilities)
    return top, probabilities.max(), margin, spread, len(labels)


def _distances(reference: Outputs, artefact: Outputs) -> tuple[float, ...]:
    if reference[1].kind != artefact[1].kind:
        return (float("nan"),) * len(DISTANCES)
    a, b = (side[0].astype(np.float64) for side in (reference, artefact))
    error = np.abs(a - b)
    cosine = metrics.cosine(reference[0][None], artefact[0][None])
    return float(a @ a), float(error @ error), cosine, float(error.max()), float(error.mean())
