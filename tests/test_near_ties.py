"""Near ties of the float model excuse an int8 file that is right otherwise, and nothing else."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kedge_convert.parity import OwnAnswers, compare, with_own_pixels
from kedge_convert.verdict import LIMITS, ParityLimits, UserLimits, excused, judge, limits_for
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Output
from kedge_runtime.artefact.kinds import Precision

INT8 = limits_for("int8")


def answers(ties: int, images: int = 100) -> Floats:
    """Return logits of which the first `ties` have their two best .05 apart, in a range of 50."""
    logits = np.random.default_rng(0).normal(0, 1, (images, 5)).astype(np.float32)
    first = np.arange(images) % 5
    logits[np.arange(images), first] = 8.0
    logits[np.arange(ties), (first[:ties] + 1) % 5] = 7.95
    logits[-1] = [40.0, 0.0, -10.0, 0.0, 0.0]
    return logits


def in_int8(logits: Floats, step: float = 50 / 255) -> Floats:
    """Round as an 8-bit output does; on a tie the other class comes out."""
    rounded = (np.round(logits / step) * step).astype(np.float32)
    rows = np.flatnonzero(np.sort(rounded)[:, -1] == np.sort(rounded)[:, -2])
    for row in rows:
        rounded[row, logits[row].argmax()] -= step
    return rounded


def test_rounding_of_near_ties_alone_rejects_nothing() -> None:
    reference = answers(40)
    found = compare(reference, in_int8(reference), Output())
    assert found.agreement is not None
    assert found.agreement < 0.7
    assert judge(found, INT8).passed
    assert excused(found, INT8) == (
        f"agreement {found.agreement:.3f} says little: on 40 of 100 images the float model's "
        "two best classes lie within 0.2, one step of int8; on the other 60 it is 1.000",
    )


@pytest.mark.parametrize(
    "limits",
    [
        limits_for("int8", UserLimits(agreement=0.9)),
        LIMITS["float32"],
        LIMITS["dynamic"],
        LIMITS["int16x8"],
    ],
)
def test_an_own_limit_and_wider_answers_are_held_as_before(limits: ParityLimits) -> None:
    reference = answers(40)
    found = compare(reference, in_int8(reference), Output())
    assert "agreement" in judge(found, limits).reasons[0]
    assert excused(found, limits) == ()


def test_few_ties_excuse_nothing() -> None:
    """Nine of a hundred can't take what a limit of .9 allows."""
    reference = answers(9)
    wrong = in_int8(reference)
    wrong[40:60] = np.roll(wrong[40:60], 1, axis=1)
    assert not judge(compare(reference, wrong, Output()), INT8).passed


def turned(values: Floats) -> Floats:
    """Twenty of the clear images get another class."""
    values[40:60] = np.roll(values[40:60], 1, axis=1)
    return values


def coarse(values: Floats) -> Floats:
    """The range is 100 times too wide: nearly every image is a tie in the file."""
    return in_int8(values, 20.0)


def flat(values: Floats) -> Floats:
    """Every class keeps its place, but the answers hardly differ any more."""
    return values * np.float32(0.02)


@pytest.mark.parametrize("spoil", [turned, coarse, flat])
def test_a_wrong_file_is_rejected_however_many_ties_there_are(spoil: Any) -> None:
    reference = answers(40)
    found = compare(reference, spoil(in_int8(reference)), Output())
    assert not judge(found, INT8).passed


def test_ties_are_those_of_the_own_pixels_too() -> None:
    reference = answers(40)
    rounded = in_int8(reference)
    found = compare(reference, rounded, Output())
    same = with_own_pixels(found, OwnAnswers("Keras", reference), reference, rounded, Output())
    assert judge(same, INT8).passed
    other = np.roll(reference, 1, axis=1)
    wrong = with_own_pixels(found, OwnAnswers("Keras", other), reference, rounded, Output())
    assert "own pixels" in judge(wrong, INT8).reasons[0]


def test_where_all_are_ties_the_divergence_decides() -> None:
    reference = answers(100)
    reference[-1] = [40.0, 39.9, -10.0, 0.0, 0.0]
    found = compare(reference, in_int8(reference), Output())
    assert found.clear is not None
    assert (found.clear.images, found.clear.agreement) == (0, None)
    assert judge(found, INT8).passed
    assert not judge(replace(found, kl=0.2), INT8).passed
    assert not judge(replace(found, kl=float("nan")), INT8).passed


@pytest.mark.parametrize("precision", LIMITS)
def test_near_ties_are_for_answers_of_eight_bits(precision: Precision) -> None:
    assert LIMITS[precision].near_ties == (precision in ("int8", "mixed"))
