"""From outputs to answers: one activation at most, no overflow, stable order."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_runtime.artefact.contract import Output
from kedge_runtime.artefact.kinds import Kind
from kedge_runtime.classify.ranking import descending, entropy, mean_binary_entropy
from kedge_runtime.classify.results import (
    check_finite,
    label_sets,
    limits,
    probabilities,
    reached,
    sigmoid,
    softmax,
)
from kedge_runtime.errors import EngineError


def _floats(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def _softmax_by_hand(values: list[float]) -> list[float]:
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    return [power / math.fsum(powers) for power in powers]


LOGITS = [
    [0.0, 0.0, 0.0],
    [1.0, 2.0, 3.0],
    [-1e4, 0.0, 1e4],
    [3e38, -3e38, 0.0],
    [1e-30, 0.0, -1e-30],
]


@pytest.mark.parametrize("logits", LOGITS)
def test_softmax_is_right_without_overflow(logits: list[float]) -> None:
    halves = [value / 2 for value in logits]
    with np.errstate(divide="raise", invalid="raise"):
        found = softmax(_floats(*halves))
    np.testing.assert_allclose(found, _softmax_by_hand(halves), atol=1e-7)
    assert found.dtype == np.float32
    assert found.sum() == pytest.approx(1)


def test_softmax_goes_along_the_last_axis() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 2, 7)).astype(np.float32)
    found = softmax(rows)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(found[1, 1], softmax(rows[1, 1]))


@pytest.mark.parametrize("logit", [-1e4, -20.0, -1.0, 0.0, 0.5, 20.0, 3e38])
def test_sigmoid_is_right_without_overflow(logit: float) -> None:
    with np.errstate(all="raise"):
        (found,) = sigmoid(_floats(logit))
    small = math.exp(-min(abs(logit), 700))
    expected = 1 / (1 + small) if logit >= 0 else small / (1 + small)
    assert found == pytest.approx(expected, abs=1e-7)


# A softmax's probabilities are tempered, too: tests/test_confidence.py.
@pytest.mark.parametrize(
    ("kind", "temperature"),
    [("softmax", 1.0), ("sigmoid", 1.0), ("sigmoid", 3.0), ("features", 1.0), ("features", 3.0)],
)
def test_only_logits_are_activated(kind: Kind, temperature: float) -> None:
    values = _floats(0.7, 0.2, 0.1)
    found = probabilities(values, Output(kind, temperature=temperature))
    np.testing.assert_array_equal(found, values)


def test_logits_go_through_the_activation_once() -> None:
    values = _floats(2.0, 1.0, 0.0)
    expected = _softmax_by_hand([2.0, 1.0, 0.0])
    np.testing.assert_allclose(probabilities(values, Output()), expected, rtol=1e-6)
    each = [1 / (1 + math.exp(-value)) for value in (2.0, 1.0, 0.0)]
    found = probabilities(values, Output(activation="sigmoid"))
    np.testing.assert_allclose(found, each, rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.7, 100.0])
def test_temperature_divides_the_logits(temperature: float) -> None:
    found = probabilities(_floats(2.0, 1.0, 0.0), Output(temperature=temperature))
    expected = _softmax_by_hand([2 / temperature, 1 / temperature, 0.0])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_outputs_are_not_written_to() -> None:
    values = _floats(2.0, 1.0, 0.0)
    probabilities(values, Output(temperature=2.0))
    assert values.tolist() == [2.0, 1.0, 0.0]


TOPS = [
    ([0.1, 0.5, 0.2, 0.15, 0.05], 3, [1, 2, 3]),
    ([0.2, 0.2, 0.2, 0.2, 0.2], 5, [0, 1, 2, 3, 4]),
    ([0.2, 0.2, 0.2, 0.2, 0.2], 2, [0, 1]),
    ([0.1, 0.4, 0.1, 0.4, 0.0], 4, [1, 3, 0, 2]),
    ([0.1, 0.4, 0.1, 0.4, 0.1], 3, [1, 3, 0]),
    ([0.1, 0.5, 0.2, 0.15, 0.05], 1, [1]),
    ([0.1, 0.5, 0.2, 0.15, 0.05], 99, [1, 2, 3, 0, 4]),
    ([0.0, 0.0, 0.0], 2, [0, 1]),
    ([1.0], 1, [0]),
]


@pytest.mark.parametrize(("values", "k", "order"), TOPS)
def test_the_largest_go_down_and_ties_go_to_the_lower_index(
    values: list[float], k: int, order: list[int]
) -> None:
    assert descending(_floats(*values), k).tolist() == order


@pytest.mark.parametrize("k", [1, 2, 5, 999, 1000])
def test_the_largest_of_many_ties_are_those_of_a_full_stable_sort(k: int) -> None:
    generator = np.random.default_rng(k)
    for _ in range(50):
        # As an int8 softmax gives them: most are 0, many are equal.
        values = (generator.integers(0, 6, 1000) / 256).astype(np.float32)
        expected = sorted(range(1000), key=lambda i: (-values[i], i))[:k]
        assert descending(values, k).tolist() == expected


ENTROPIES = [
    ([1.0, 0.0, 0.0, 0.0], 0.0),
    ([0.25, 0.25, 0.25, 0.25], 1.0),
    ([0.5, 0.5, 0.0, 0.0], 0.5),
    ([0.5, 0.25, 0.25], 1.5 / math.log2(3)),
    ([0.25, 0.25, 0.0, 0.0], 0.5),  # quantised: the sum is no 1
    ([0.0, 0.0, 0.0, 0.0], 1.0),  # quantised: every class rounded away
    ([1.0], 0.0),
    ([0.25, 0.75], 0.8112781),  # two classes are enough to be unsure between
    ([0.0, 0.0], 1.0),
]


@pytest.mark.parametrize(("values", "expected"), ENTROPIES)
def test_entropy_is_a_share_of_the_largest_possible(values: list[float], expected: float) -> None:
    assert entropy(_floats(*values)) == pytest.approx(expected, abs=1e-6)


def test_entropy_of_a_thousand_classes_stays_within_its_range() -> None:
    assert entropy(np.full(1000, 1e-3, np.float32)) == pytest.approx(1, abs=1e-6)
    assert entropy(softmax(np.eye(1, 1000, dtype=np.float32)[0] * 1e4)) == 0
    assert entropy(np.full(1000, 1e-3, np.float32)) <= 1


BINARY = [
    ([0.0, 1.0], 0.0),
    ([0.5, 0.5], 1.0),
    ([0.5, 1.0], 0.5),
    ([0.25, 0.25], 0.8112781),  # -.25 log2 .25 - .75 log2 .75
]


@pytest.mark.parametrize(("values", "expected"), BINARY)
def test_independent_classes_have_an_entropy_each(values: list[float], expected: float) -> None:
    assert mean_binary_entropy(_floats(*values)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(wrong: float) -> None:
    with pytest.raises(EngineError, match="aren't finite"):
        check_finite(_floats(0.0, wrong, 1.0))
    np.testing.assert_array_equal(check_finite(_floats(0.0, 1.0)), [0, 1])


def test_probabilities_are_float32_of_any_logits() -> None:
    """Engines may give float16 or float64; what follows adds up float32."""
    for activate in (softmax, sigmoid):
        assert activate(np.zeros(3, np.float64)).dtype == np.float32


THRESHOLDS = [
    ((), 0, [0.5]),
    ((), 1, [0.5]),
    ((0.3,), 0, [0.3]),
    # One is for all outputs, the background's too.
    ((0.3,), 1, [0.3]),
    ((0.1, 0.2), 0, [0.1, 0.2]),
    ((0.1, 0.2), 1, [0.5, 0.1, 0.2]),
]


@pytest.mark.parametrize(("thresholds", "offset", "expected"), THRESHOLDS)
def test_each_class_has_its_threshold(
    thresholds: tuple[float, ...], offset: int, expected: list[float]
) -> None:
    found = limits(thresholds, offset)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected)


def test_without_an_offset_the_first_threshold_is_the_first_outputs() -> None:
    np.testing.assert_allclose(limits((0.1, 0.2)), [0.1, 0.2])
    assert reached(_floats(0.15, 0.15), (0.1, 0.2)).tolist() == [True, False]


def test_a_class_at_its_threshold_is_in_the_answer() -> None:
    values = _floats(0.5, 0.49999997, 0.5)
    assert reached(values, ()).tolist() == [True, False, True]
    assert reached(values, (0.5, 0.4), 1).tolist() == [True, False, True]


def test_a_contracts_label_sets_leave_out_the_background() -> None:
    output = Output("sigmoid", thresholds=(0.9, 0.1), label_offset=1)
    assert label_sets(_floats(0.6, 0.6, 0.6), output).tolist() == [True, False, True]
