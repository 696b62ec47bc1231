"""The bets: their mean is 1, their wealth breaks the bound no more often than stated, and pays."""

import numpy as np
import pytest

from kedge_runtime.field import martingale
from kedge_runtime.field.martingale import BETS, ODDS, SHIFTS, Wealth, onset, paid, ranks


def test_bets_on_uniform_ranks_are_fair() -> None:
    p = (np.arange(200_000) + 0.5) / 200_000
    assert martingale.bets(martingale.scores(p)).mean(axis=0) == pytest.approx(1, abs=4e-3)
    for share in (0.001, 0.2, 0.9):
        factors = martingale.share_bets(p, np.full(len(p), share))
        assert factors.mean(axis=0) == pytest.approx(1, abs=1e-3)


def test_the_stake_is_paid_in_once_and_never_wholly() -> None:
    parts = [paid(frame) for frame in range(10_000)]
    assert all(part > 0 for part in parts)
    assert parts == sorted(parts, reverse=True)
    assert 0.75 < sum(parts) < 1


def test_ranks_among_few_earlier_values_are_uniform_and_independent() -> None:
    rng = np.random.default_rng(3)
    lives = []
    for _ in range(4000):
        values, p = rng.integers(0, 3, 12).tolist(), []
        for i in range(4, 12):
            before = np.array(values[:i])
            below, equal = (before < values[i]).sum(), (before == values[i]).sum()
            numbers = map(np.array, (below, equal, i, rng.random()))
            p.append(float(ranks(*numbers)))
        lives.append(p)
    drawn = np.array(lives)
    assert np.histogram(drawn, 5, (0, 1))[0] / drawn.size == pytest.approx(0.2, abs=0.01)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(8)).max() < 0.06


@pytest.mark.parametrize("error", [0.05, 0.2])
def test_wealth_breaks_the_bound_no_more_often_than_stated(error: float) -> None:
    rng = np.random.default_rng(0)
    lives = Wealth(1000, BETS)
    highest = np.zeros(1000)
    for frame in range(400):
        lives.bet(martingale.bets(rng.normal(size=1000)), frame)
        highest = np.maximum(highest, lives.money.sum(axis=1))
    broken = (highest >= 1 / error).mean()
    assert broken <= error
    assert broken > 0  # or the test would say nothing


def test_a_shift_by_half_a_deviation_is_found_within_300_frames_after_thousands() -> None:
    rng = np.random.default_rng(1)
    test = Wealth(1, BETS)
    for frame in range(5000):
        test.bet(martingale.bets(rng.normal(size=1)), frame)
    assert not test.reached(1e-4)
    for frame in range(5000, 5300):
        test.bet(martingale.bets(rng.normal(0.5, size=1)), frame)
    assert test.reached(1e-4) == [0]
    test.withdraw(0)
    assert not test.reached(1e-4)


def test_a_class_that_comes_too_often_is_found_by_small_ranks() -> None:
    rng = np.random.default_rng(1)
    test = Wealth(1, len(ODDS))
    for frame in range(60):
        p = rng.uniform(0, 0.02) if rng.random() < 0.4 else rng.uniform(0.02, 1)
        test.bet(martingale.share_bets(np.array([p]), np.array([0.02])), frame)
    assert test.reached(1e-6) == [0]


def test_the_onset_is_where_the_bets_begin_to_pay() -> None:
    rng = np.random.default_rng(2)
    normal = np.concatenate([rng.normal(size=150), rng.normal(1.5, size=50)])
    assert onset(martingale.bets(normal)[:, len(SHIFTS) - 1]) == pytest.approx(150, abs=3)
