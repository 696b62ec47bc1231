"""Histograms against numpy, and ranges against what they promise, on the values themselves."""

from collections.abc import Callable

import numpy as np
import pytest

from kedge_convert.export.exported import EMPTY, Range
from kedge_convert.quantise.ranges import (
    HALF,
    LARGEST_SAMPLE,
    METHODS,
    RANGE_METHODS,
    STEPS,
    Histogram,
    Observed,
    choose,
    minmax,
    mse,
    percentile,
)
from kedge_runtime.arrays import Floats

Draw = Callable[[np.random.Generator], Floats]


def _relu6(rng: np.random.Generator) -> Floats:
    return np.asarray(rng.normal(1, 2, 16_000).clip(0, 6), np.float32)


def _swish(rng: np.random.Generator) -> Floats:
    x = rng.normal(0, 3, 16_000)
    return np.asarray(x / (1 + np.exp(-x)), np.float32)


def _outlier(rng: np.random.Generator) -> Floats:
    return np.asarray(np.append(rng.normal(0, 1, 16_000), [12.0, -10.0]), np.float32)


def _negative(rng: np.random.Generator) -> Floats:
    return np.asarray(-rng.exponential(0.01, 16_000) - 0.5, np.float32)


DRAWS: dict[str, Draw] = {
    "relu6": _relu6,
    "swish": _swish,
    "outlier": _outlier,
    "negative": _negative,
}


@pytest.fixture(params=DRAWS)
def values(request: pytest.FixtureRequest) -> Floats:
    return DRAWS[request.param](np.random.default_rng(3))


def histogram(values: Floats, parts: int = 1) -> Histogram:
    found = Histogram()
    for part in np.array_split(values, parts):
        found.add(part)
    return found


def squared_error(values: Floats, one: Range) -> float:
    """Return what holding the values in 256 steps really costs."""
    step = (one.high - one.low) / STEPS
    zero = np.rint(-one.low / step)
    held = (np.rint(values / step) + zero).clip(0, STEPS) - zero
    return float(np.square(values - held * step).mean())


def test_growing_loses_nothing(values: Floats) -> None:
    """Parts in any order count as the whole does, and as numpy counts."""
    whole, grown = histogram(values), histogram(np.sort(values), parts=7)
    assert np.array_equal(whole.counts, grown.counts)
    edges = np.linspace(-whole.limit, whole.limit, 2 * HALF + 1)
    wanted, _ = np.histogram(values.astype(np.float64), edges)
    assert np.array_equal(whole.counts, wanted)
    assert (whole.low, whole.high) == (values.min(), values.max())


def test_two_histograms_together_are_that_of_all_values(values: Floats) -> None:
    whole, few, many = histogram(values), histogram(values[:100]), histogram(values[100:])
    for found in (few.plus(many), many.plus(few)):
        assert np.array_equal(found.counts, whole.counts)
        assert (found.limit, found.low, found.high) == (whole.limit, whole.low, whole.high)


def test_every_way_gives_every_tensor_a_range(values: Floats) -> None:
    observed = Observed({"one": histogram(values)})
    for way in RANGE_METHODS:
        assert set(choose(way, observed)) == {"one"}


def test_a_large_tensor_is_sampled_but_its_range_is_not() -> None:
    values = np.zeros((4, LARGEST_SAMPLE), np.float32)
    values[3, -1] = 9.0
    found = histogram(values)
    assert found.counts.sum() <= 2 * LARGEST_SAMPLE
    assert minmax(found) == Range(0.0, 9.0)


@pytest.mark.parametrize("method", METHODS)
def test_every_range_holds_zero_and_no_more_than_there_is(method: str, values: Floats) -> None:
    one = METHODS[method](histogram(values))
    assert min(0.0, float(values.min())) <= one.low <= 0.0 <= one.high
    assert one.high <= max(0.0, float(values.max()))
    assert one.low < one.high


def test_percentiles_are_those_of_the_values(values: Floats) -> None:
    found = histogram(values)
    one = percentile(found, 0.99)
    low, high = np.quantile(values, [0.005, 0.995])
    width = found.limit / HALF
    assert one.low == pytest.approx(min(low, 0), abs=2 * width)
    assert one.high == pytest.approx(max(high, 0), abs=2 * width)


def test_mse_beats_every_other_method_at_what_it_minimises(values: Floats) -> None:
    found = histogram(values)
    own = squared_error(values, mse(found))
    for method in METHODS.values():
        assert own <= squared_error(values, method(found)) * 1.02


def test_mse_cuts_outliers_off() -> None:
    assert mse(histogram(_outlier(np.random.default_rng(3)))).high < 12


def test_a_tensor_of_zeros_has_a_range_that_engines_take() -> None:
    found = histogram(np.zeros(100, np.float32))
    for method in METHODS.values():
        assert method(found) == Range(0.0, EMPTY)
