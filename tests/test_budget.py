"""The budget's words and its forecast, held against drawn noise."""

from collections.abc import Callable

import numpy as np
import pytest

from kedge_convert.quantise.budget import (
    Budget,
    DropForecast,
    LogitNoise,
    forecast,
    label_margins,
    label_noise,
    margins,
    noise,
)
from kedge_runtime.artefact.contract import Output
from kedge_runtime.artefact.kinds import Kind
from kedge_runtime.classify.results import label_sets, probabilities, sigmoid


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of a classifier that is often unsure, and true classes it mostly finds."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, 20)).astype(np.float32)
    best = logits.argmax(axis=1)
    return logits, np.where(rng.random(count) < 0.7, best, rng.integers(0, 20, count))


# What each shape of noise is drawn by, at a standard deviation of 1.
SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "gaussian": lambda rng, shape: rng.normal(0, 1, shape),
    # One image of ten is five times as noisy as the others.
    "heavy": lambda rng, shape: (
        rng.normal(0, 1, shape) * np.where(rng.random((shape[0], 1)) < 0.1, 5, 1) / 1.84
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [0.05, 0.2, 0.5])
def test_the_forecast_comes_true(size: float, shape: str) -> None:
    """Spread measured on 40 pictures, margins known on 400, truth counted on 40 000 others."""
    few, many = drawn(400, seed=1), drawn(40_000, seed=2)
    rng = np.random.default_rng(3)
    drawn_noise = SHAPES[shape]
    perturbed = [x + size * drawn_noise(rng, x.shape).astype(np.float32) for x, _ in (few, many)]
    measured = noise(few[0][:40], perturbed[0][:40])
    assert measured.spread == pytest.approx(size * np.sqrt(2), rel=0.35)
    expected = forecast(margins(few[0], list(few[1])), measured)
    before, after = many[0].argmax(axis=1), perturbed[1].argmax(axis=1)
    assert expected.changed == pytest.approx((before != after).mean(), rel=0.35)
    drop = (before == many[1]).mean() - (after == many[1]).mean()
    assert expected.lost is not None
    assert expected.gained is not None
    assert expected.lost - expected.gained == pytest.approx(drop, rel=0.5)


@pytest.mark.parametrize("kind", ["logits", "sigmoid"])
@pytest.mark.parametrize("thresholds", [(), (0.9,)])
def test_the_forecast_of_label_sets_comes_true(kind: Kind, thresholds: tuple[float, ...]) -> None:
    output = Output(kind, activation="sigmoid", thresholds=thresholds)
    logits, size = drawn(8000, seed=1)[0][:, :4], 0.1 if kind == "logits" else 0.02
    outputs = logits if kind == "logits" else sigmoid(logits)
    rng = np.random.default_rng(3)
    perturbed = outputs + rng.normal(0, size, outputs.shape).astype(np.float32)
    measured = label_noise(outputs[:40], perturbed[:40])
    assert measured.spread == pytest.approx(size, rel=0.2)
    expected = forecast(label_margins(outputs[:400], output), measured)
    sets = [label_sets(probabilities(each, output), output) for each in (outputs, perturbed)]
    counted = (sets[0] != sets[1]).any(axis=1).mean()
    assert counted > 0.02
    assert expected.changed == pytest.approx(counted, rel=0.35)
    assert (expected.lost, expected.gained) == (None, None)


def test_no_noise_changes_nothing() -> None:
    logits, classes = drawn(50)
    quiet = forecast(margins(logits, list(classes)), noise(logits, logits))
    assert quiet == DropForecast(0.0, 0.0, 0.0)
    assert quiet.holds(Budget(0.0, 1.0), 10)


def test_who_is_never_right_has_nothing_to_lose() -> None:
    logits, _ = drawn(50)
    wrong = forecast(
        margins(logits, list((logits.argmax(axis=1) + 1) % 20)),
        LogitNoise(np.random.default_rng(0).normal(0, 0.5, 200)),
    )
    assert wrong.lost == 0
    assert wrong.gained is not None
    assert wrong.changed > 0 < wrong.gained


def test_without_classes_every_change_counts_as_lost() -> None:
    unknown, known = DropForecast(0.02), DropForecast(0.02, 0.012, 0.01)
    budget = Budget(max_drop=0.01)
    assert not unknown.holds(budget, 10_000)
    assert known.holds(budget, 10_000)


@pytest.mark.parametrize(
    ("changed", "least", "pictures", "holds"),
    [
        (0.010, 0.98, 10_000, True),
        (0.010, 0.98, 30, False),  # one picture of thirty is more than may change
        (0.021, 0.98, 10**9, False),
        (0.000, 1.00, 30, True),
    ],
)
def test_few_pictures_ask_for_more(
    changed: float, least: float, pictures: int, holds: bool
) -> None:
    assert DropForecast(changed).holds(Budget(min_agreement=least), pictures) is holds


def test_no_limit_is_no_budget() -> None:
    assert not Budget() and not Budget(min_agreement=0.0)
    assert Budget(max_drop=0.0)
    assert Budget(min_agreement=0.9)


def test_smoothing_keeps_the_variance_and_the_tail() -> None:
    values = np.concatenate([np.random.default_rng(1).normal(0, 1, 300), np.full(4, -20.0)])
    found = LogitNoise(values)
    far = found.crossing(np.array([15.0]))
    assert far == pytest.approx(4 / 304 / 2, rel=0.3)  # half of them in this direction
    assert LogitNoise(values[:300]).crossing(np.array([15.0])) < 1e-6
    steps = np.linspace(-80, 80, 4001)
    density, centres = np.diff(found.crossing(-steps)), (steps[1:] + steps[:-1]) / 2
    assert (density * centres).sum() == pytest.approx(0, abs=0.01)
    assert (density * centres**2).sum() == pytest.approx(np.square(values).mean(), rel=0.1)
