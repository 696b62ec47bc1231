"""Each metric against a plain-Python computation that shares no code with it."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kedge_runtime.classify import results
from kedge_runtime.drift import statistics

Rows = list[list[float]]
Array = np.ndarray[Any, np.dtype[np.float32]]

REFERENCE: Rows = [[1.0, 2.0, 3.0, -4.0], [0.5, -0.5, 0.25, 0.0], [9.0, 8.0, 7.0, 6.0]]
CANDIDATE: Rows = [[1.5, 3.5, 3.0, -4.0], [0.5, -0.5, 0.75, 0.0], [9.0, 8.0, 7.0, 6.5]]


def floats(rows: Rows) -> Array:
    return np.array(rows, np.float32)


def pairs(reference: Rows, candidate: Rows) -> list[tuple[float, float]]:
    rows = zip(reference, candidate, strict=True)
    return [pair for a, b in rows for pair in zip(a, b, strict=True)]


def plain_max(reference: Rows, candidate: Rows) -> float:
    return max(abs(a - b) for a, b in pairs(reference, candidate))


def plain_mean(reference: Rows, candidate: Rows) -> float:
    errors = [abs(a - b) for a, b in pairs(reference, candidate)]
    return sum(errors) / len(errors)


def plain_relative(reference: Rows, candidate: Rows) -> float:
    return plain_max(reference, candidate) / max(abs(a) for row in reference for a in row)


def plain_cosine(reference: Rows, candidate: Rows) -> float:
    values = [
        sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
        for a, b in zip(reference, candidate, strict=True)
    ]
    return sum(values) / len(values)


def plain_sqnr(reference: Rows, candidate: Rows) -> float:
    signal = sum(a * a for a, _ in pairs(reference, candidate))
    noise = sum((a - b) ** 2 for a, b in pairs(reference, candidate))
    return 10 * math.log10(signal / noise)


def plain_softmax(row: list[float]) -> list[float]:
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def plain_kl(reference: Rows, candidate: Rows) -> float:
    return sum(
        p * math.log(p / q)
        for a, b in zip(reference, candidate, strict=True)
        for p, q in zip(plain_softmax(a), plain_softmax(b), strict=True)
    ) / len(reference)


def plain_sigmoid_kl(reference: Rows, candidate: Rows) -> float:
    total = 0.0
    for a, b in pairs(reference, candidate):
        p, q = 1 / (1 + math.exp(-a)), 1 / (1 + math.exp(-b))
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    return total / len(reference)


def softmax_divergence(reference: Array, candidate: Array) -> float:
    return statistics.kl(results.softmax(reference), results.softmax(candidate), multi_label=False)


def sigmoid_divergence(reference: Array, candidate: Array) -> float:
    return statistics.kl(results.sigmoid(reference), results.sigmoid(candidate), multi_label=True)


Metric = Callable[[Array, Array], float]
ORACLES: dict[Metric, Callable[[Rows, Rows], float]] = {
    statistics.max_error: plain_max,
    statistics.mean_error: plain_mean,
    statistics.relative_error: plain_relative,
    statistics.cosine: plain_cosine,
    statistics.sqnr: plain_sqnr,
    softmax_divergence: plain_kl,
    sigmoid_divergence: plain_sigmoid_kl,
}


@pytest.mark.parametrize("metric", ORACLES)
def test_against_plain_python(metric: Metric) -> None:
    measured = metric(floats(REFERENCE), floats(CANDIDATE))
    assert measured == pytest.approx(ORACLES[metric](REFERENCE, CANDIDATE), rel=1e-4)


@pytest.mark.parametrize(
    ("metric", "ideal"),
    [
        (statistics.max_error, 0),
        (statistics.mean_error, 0),
        (statistics.relative_error, 0),
        (statistics.cosine, 1),
        (softmax_divergence, 0),
        (sigmoid_divergence, 0),
    ],
)
def test_identical_answers(metric: Metric, ideal: float) -> None:
    assert metric(floats(REFERENCE), floats(REFERENCE)) == pytest.approx(ideal, abs=1e-12)


def test_identical_answers_have_a_finite_sqnr() -> None:
    assert 200 < statistics.sqnr(floats(REFERENCE), floats(REFERENCE)) < 400


@pytest.mark.parametrize("metric", ORACLES)
def test_zeros_give_a_finite_number(metric: Metric) -> None:
    zeros = floats([[0.0, 0.0], [0.0, 0.0]])
    assert math.isfinite(metric(zeros, zeros))
    assert math.isfinite(metric(zeros, zeros + 1))


@pytest.mark.parametrize("metric", [softmax_divergence, sigmoid_divergence])
def test_certainty_of_another_class_is_far_but_finite(metric: Metric) -> None:
    measured = metric(floats([[200.0, -200.0]]), floats([[-200.0, 200.0]]))
    assert 20 < measured < 100


@pytest.mark.parametrize("metric", ORACLES)
def test_nan_is_not_hidden(metric: Metric) -> None:
    candidate = floats(CANDIDATE)
    candidate[1, 2] = np.nan
    assert math.isnan(metric(floats(REFERENCE), candidate))


@pytest.mark.parametrize(("k", "share"), [(1, 1 / 3), (2, 1.0), (3, 1.0), (9, 1.0)])
def test_top_k_agreement(k: int, share: float) -> None:
    # Row 0 falls to second place, row 1 as well, row 2 stays.
    assert statistics.top_k_agreement(floats(REFERENCE), floats(CANDIDATE), k) == pytest.approx(
        share
    )


def test_a_tie_goes_to_the_lower_class_as_on_the_device() -> None:
    tied = floats([[1.0, 1.0, 0.0]])
    assert statistics.top_k_agreement(floats([[2.0, 1.0, 0.0]]), tied, 1) == 1
    assert statistics.top_k_agreement(floats([[1.0, 2.0, 0.0]]), tied, 1) == 0
    assert statistics.top_k_agreement(tied, tied, 1) == 1


def test_label_agreement_counts_whole_sets() -> None:
    sets = np.array([[True, False], [True, True], [False, False]])
    other = np.array([[True, False], [True, False], [False, False]])
    assert statistics.label_agreement(sets, other) == pytest.approx(2 / 3)
    assert statistics.label_agreement(sets, sets) == 1
