"""The statistics of drift, against scipy, exact enumeration and simulation."""

import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_runtime.drift import gates, statistics
from kedge_runtime.drift.gates import Pairs, max_drop, min_agreement

stats = pytest.importorskip("scipy.stats")

DRAWS = 2000


def test_the_quantiles_are_the_normal_ones() -> None:
    assert stats.norm.ppf(0.5 + statistics.LEVEL / 2) == pytest.approx(statistics.Z, abs=1e-15)


@pytest.mark.parametrize(
    ("count", "total"), [(0, 1), (1, 1), (0, 40), (38, 40), (499, 500), (7, 9)]
)
def test_wilson(count: int, total: int) -> None:
    expected = stats.binomtest(count, total).proportion_ci(0.95, method="wilson")
    found = statistics.wilson(count, total)
    np.testing.assert_allclose(found, (expected.low, expected.high), atol=1e-14)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (6, 2), (9, 9), (3, 40), (900, 1100)])
def test_mcnemar(lost: int, gained: int) -> None:
    expected = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert statistics.mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("drawn", "marked", "total", "found"),
    [
        (5, 10, 500, 0),
        (5, 10, 500, 3),
        (5, 10, 500, 5),
        (400, 300, 500, 250),
        (400, 300, 500, 100),
        (7, 0, 9, 0),
    ],
)
def test_the_hypergeometric_tail(drawn: int, marked: int, total: int, found: int) -> None:
    expected = stats.hypergeom.sf(found - 1, total, marked, drawn)
    assert statistics.hypergeometric_tail(drawn, marked, total, found) == pytest.approx(
        expected, rel=1e-9
    )


def test_benjamini_and_hochberg() -> None:
    p = np.random.default_rng(0).uniform(size=50) ** 2
    expected = stats.false_discovery_control(p, method="bh")
    np.testing.assert_allclose(statistics.benjamini_hochberg(p), expected, atol=1e-15)


def test_the_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(3, 2, 900)
    error = values.std(ddof=1) / 30
    expected = stats.norm.interval(0.95, values.mean(), error)
    np.testing.assert_allclose(statistics.mean_interval(values), expected, rtol=1e-12)


@pytest.mark.parametrize(("b", "c", "n"), [(6, 2, 500), (0, 0, 30), (12, 0, 80), (3, 40, 300)])
def test_the_bounds_are_where_the_score_test_stops_rejecting(b: int, c: int, n: int) -> None:
    """The constrained likelihood is maximised on a grid, by nobody's formula."""

    def statistic(difference: float) -> float:
        gained = np.linspace(max(0.0, -difference), (1 - difference) / 2, 2_000_001)[1:-1]
        lost = gained + difference
        with np.errstate(divide="ignore"):
            logs = sum(k * np.log(p) for k, p in ((b, lost), (c, gained)) if k)
            rest = (n - b - c) * np.log1p(-lost - gained)
        best = int(np.argmax(logs + rest))
        variance = (lost[best] + gained[best] - difference**2) / n
        return float(((b - c) / n - difference) / np.sqrt(variance))

    for bound in statistics.paired_drop(b, c, n):
        assert abs(statistic(float(bound))) == pytest.approx(statistics.Z, rel=2e-3)


def test_a_bound_is_where_its_test_rejects() -> None:
    rng = np.random.default_rng(0)
    lost, gained = rng.integers(0, 30, (2, 500))
    low, high = statistics.paired_drop(lost, gained, 500)
    outside = (low > 0.01) | (high < 0.01)
    assert np.array_equal(outside, statistics.drop_differs(lost, gained, 500, 0.01))
    low, high = statistics.wilson(450 + lost, 500)
    outside = (low > 0.95) | (high < 0.95)
    assert np.array_equal(outside, statistics.share_differs(450 + lost, 500, 0.95))


@pytest.mark.parametrize("n", [1, 10, 500])
def test_everything_lost_and_nothing(n: int) -> None:
    # There the equation can be solved by hand.
    squared = statistics.Z**2
    low, high = statistics.paired_drop(n, 0, n)
    assert (float(low), float(high)) == pytest.approx(((n - squared) / (n + squared), 1))
    low, high = statistics.paired_drop(0, 0, n)
    expected = squared / (n + squared)
    assert (float(low), float(high)) == pytest.approx((-expected, expected))


def test_the_interval_turns_with_its_sides() -> None:
    low, high = statistics.paired_drop([6, 0, 3], [2, 5, 3], [500, 90, 40])
    turned = statistics.paired_drop([2, 5, 3], [6, 0, 3], [500, 90, 40])
    np.testing.assert_allclose((low, high), (-turned[1], -turned[0]), atol=1e-12)


# ImageFolder, share of discordant pairs, true drop: from one flip in a hundred to a broken model.
SCENARIOS = [
    (500, 0.02, 0.0),
    (500, 0.06, 0.01),
    (1000, 0.04, 0.003),
    (2000, 0.02, 0.01),
    (5000, 0.06, 0.01),
    (5000, 0.3, 0.1),
]


def _draw(n: int, discordant: float, drop: float, draws: int = DRAWS) -> NDArray[np.int64]:
    lost = (discordant + drop) / 2
    shares = [lost, discordant - lost, 1 - discordant]
    return np.random.default_rng(0).multinomial(n, shares, draws)


@pytest.mark.parametrize(("n", "discordant", "drop"), SCENARIOS)
def test_ninety_five_intervals_of_a_hundred_hold_the_truth(
    n: int, discordant: float, drop: float
) -> None:
    lost, gained, _ = _draw(n, discordant, drop).T
    low, high = statistics.paired_drop(lost, gained, n)
    assert 0.94 <= ((low <= drop) & (drop <= high)).mean() <= 0.96


@pytest.mark.parametrize(("n", "discordant"), [(200, 0.03), (500, 0.04), (500, 0.15), (5000, 0.02)])
def test_at_the_gate_at_most_one_in_twenty_passes(n: int, discordant: float) -> None:
    lost, gained, _ = _draw(n, discordant, 0.01).T
    assert (statistics.paired_drop(lost, gained, n)[1] <= 0.01).mean() <= 0.05


@pytest.mark.parametrize("n", [100, 500, 5000])
def test_at_the_agreements_gate_at_most_one_in_twenty_passes(n: int) -> None:
    counts = np.arange(n + 1)
    passes = statistics.wilson(counts, n)[0] >= 0.95
    assert stats.binom.pmf(counts[passes], n, 0.95).sum() <= 0.05


PILOTS = [(500, 6, 4), (500, 6, 2), (100, 0, 0), (1000, 25, 10), (2000, 40, 25), (100, 3, 0)]


@pytest.mark.parametrize(("n", "lost", "gained"), PILOTS)
def test_the_stated_number_decides_in_nine_of_ten_draws(n: int, lost: int, gained: int) -> None:
    """The truth is drawn from what the pilot tells of it, then as many images as were stated."""
    gate = max_drop(0.01, Pairs(n - lost - gained, lost, gained, 0))
    assert gate.verdict == "INCONCLUSIVE"
    assert gate.images_needed is not None
    rng = np.random.default_rng(0)
    truths = rng.dirichlet([lost + 0.5, gained + 0.5, n - lost - gained + 1], DRAWS)
    b, c, _ = rng.multinomial(gate.images_needed, truths).T
    low, high = statistics.paired_drop(b, c, gate.images_needed)
    assert ((high <= 0.01) | (low > 0.01)).mean() >= 0.9


@pytest.mark.parametrize(("n", "agreed"), [(100, 97), (500, 480), (500, 466), (60, 60)])
def test_the_stated_number_decides_an_agreement(n: int, agreed: int) -> None:
    gate = min_agreement(0.95, agreed, n)
    assert gate.verdict == "INCONCLUSIVE"
    assert gate.images_needed is not None
    rng = np.random.default_rng(0)
    truths = rng.beta(agreed + 0.5, n - agreed + 0.5, DRAWS)
    low, high = statistics.wilson(rng.binomial(gate.images_needed, truths), gate.images_needed)
    assert ((low >= 0.95) | (high < 0.95)).mean() >= 0.9


@pytest.mark.parametrize(("n", "lost", "gained"), PILOTS)
def test_half_of_the_images_needed_decide_less_often(n: int, lost: int, gained: int) -> None:
    """The number is the least: the truth is drawn as above, then half as many images."""
    gate = max_drop(0.01, Pairs(n - lost - gained, lost, gained, 0))
    assert gate.images_needed is not None
    half = gate.images_needed // 2
    rng = np.random.default_rng(0)
    truths = rng.dirichlet([lost + 0.5, gained + 0.5, n - lost - gained + 0.5], DRAWS)
    b, c, _ = rng.multinomial(half, truths).T
    low, high = statistics.paired_drop(b, c, half)
    assert ((high <= 0.01) | (low > 0.01)).mean() < 0.9


def test_images_needed_are_more_than_were_measured() -> None:
    gate = max_drop(0.01, Pairs(486, 8, 6, 0))
    assert gate.images_needed is not None
    assert gate.images_needed > 500


def test_images_needed_are_stated_for_an_estimate_on_the_gate() -> None:
    """The true drop may lie to either side, so that some number decides in nine of ten cases."""
    gate = max_drop(0.01, Pairs(480, 10, 5, 5))
    assert gate.verdict == "INCONCLUSIVE"
    assert gate.images_needed


@pytest.mark.parametrize(("count", "rounded"), [(0.3, 1), (99.2, 100), (101, 110), (12345, 13000)])
def test_two_leading_digits(count: float, rounded: int) -> None:
    assert statistics.rounded_up(count) == rounded


@pytest.mark.parametrize(
    ("lost", "gained", "verdict"),
    [(0, 30, "PASS"), (9, 5, "INCONCLUSIVE"), (60, 10, "FAIL"), (30, 0, "FAIL")],
)
def test_verdicts_look_at_the_bound(lost: int, gained: int, verdict: str) -> None:
    gate = max_drop(0.01, Pairs(1000 - lost - gained, lost, gained, 0))
    assert gate.verdict == verdict
    assert (gate.images_needed is None) == (verdict != "INCONCLUSIVE")


PAIRS = Pairs(970, 9, 5, 16)


@pytest.mark.parametrize("at", ["low", "high", "value"])
def test_a_limit_that_is_a_bound_of_the_drop(at: str) -> None:
    """At its upper bound the whole interval holds; at its lower bound, not all of it misses."""
    limit = getattr(PAIRS.drop, at)
    gate = max_drop(limit, PAIRS)
    assert (gate.limit, gate.value) == (limit, PAIRS.drop)
    assert gate.verdict == ("PASS" if at == "high" else "INCONCLUSIVE")
    assert max_drop(np.nextafter(PAIRS.drop.low, -1), PAIRS).verdict == "FAIL"


@pytest.mark.parametrize("at", ["low", "high", "value"])
def test_a_limit_that_is_a_bound_of_the_agreement(at: str) -> None:
    value = gates.share(960, 1000)
    limit = getattr(value, at)
    gate = min_agreement(limit, 960, 1000)
    assert (gate.limit, gate.value) == (limit, value)
    assert gate.verdict == ("PASS" if at == "low" else "INCONCLUSIVE")
    missed = min_agreement(float(np.nextafter(value.high, 1)), 960, 1000)
    assert (missed.verdict, missed.limit) == ("FAIL", np.nextafter(value.high, 1))


def test_a_missed_gate_tells_its_limit() -> None:
    gate = max_drop(0.01, Pairs(930, 60, 10, 0))
    assert (gate.verdict, gate.limit) == ("FAIL", 0.01)


def test_the_stated_number_is_the_same_in_every_run() -> None:
    """It comes from a fixed seed: a report made again is the same report."""
    found = {max_drop(0.01, PAIRS).images_needed for _ in range(5)}
    assert len(found) == 1


def _from(least: int) -> statistics.Decides:
    """Return what decides from a number of images on."""
    return lambda counts, total: np.full(len(counts), total >= least)


@pytest.mark.parametrize("least", [150, 1000, 1900, 5000])
def test_the_stated_number_is_the_least_that_decides(least: int) -> None:
    """To the 2 % that the search promises, and rounded up to two digits."""
    found = statistics.images_needed((50, 50), _from(least))
    assert found in {statistics.rounded_up(least), statistics.rounded_up(least * 1.02)}


def test_a_number_beyond_every_folder_is_none() -> None:
    assert statistics.images_needed((50, 50), _from(50 * 2**20)) is not None
    assert statistics.images_needed((50, 50), _from(200 * 2**20)) is None


@pytest.mark.parametrize(("count", "total"), [(95, 100), (960, 1000), (3, 40), (0, 50), (50, 50)])
def test_a_share_differs_beyond_its_interval_and_not_within(count: int, total: int) -> None:
    low, high = (float(bound) for bound in statistics.wilson(count, total))
    within = [limit for limit in (low + 1e-9, count / total, high - 1e-9) if 0 < limit < 1]
    beyond = [limit for limit in (low - 1e-9, high + 1e-9) if 0 < limit < 1]
    assert not any(statistics.share_differs(count, total, limit) for limit in within)
    assert all(statistics.share_differs(count, total, limit) for limit in beyond)


def test_shares_and_probabilities_stay_within_0_and_1() -> None:
    n = np.arange(1, 2000)
    for count in (n, 0 * n):
        low, high = statistics.wilson(count, n)
        assert (low >= 0).all() and (high <= 1).all()
    tails = [statistics.hypergeometric_tail(k, k, 2 * k, 0) for k in range(1, 200)]
    assert max(tails) <= 1


def test_adjusted_p_values_end_at_1() -> None:
    assert statistics.benjamini_hochberg([1.0, 1.0, 0.5]).tolist() == [1.0, 1.0, 1.0]
    assert statistics.benjamini_hochberg([0, 1]).tolist() == [0.0, 1.0]
