"""The benchmarks' paired intervals, against the normal approximation that large samples obey."""

import numpy as np
import pytest

import paired


@pytest.mark.parametrize(("better", "worse"), [(0.1, 0.04), (0.05, 0.05), (0.3, 0.0)])
def test_large_samples_are_normal(better: float, worse: float) -> None:
    count = 4000
    differences = np.zeros(count)
    differences[: round(better * count)] = 1
    differences[count - round(worse * count) :] = -1
    low, high = paired.interval(differences, range(count))
    mean, half = differences.mean(), 1.96 * differences.std() / np.sqrt(count)
    np.testing.assert_allclose((low, high), (mean - half, mean + half), atol=0.05 * half)


def test_a_image_that_comes_three_times_says_no_more_than_once() -> None:
    differences = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 300)
    once = paired.interval(differences, range(300))
    thrice = paired.interval(np.tile(differences, 3), [*range(300)] * 3)
    np.testing.assert_allclose(thrice, once)


def test_no_difference() -> None:
    assert paired.interval(np.zeros(50), range(50)) == (0.0, 0.0)
