"""Which candidate ships: the nearest, but few pictures must not flatter the more daring one."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_convert.export.exported import Recipe
from kedge_convert.images import SELECTION, ImageSplit
from kedge_convert.quantise import candidates
from kedge_convert.quantise.comparing import MARGIN, Candidate, closest_ranges
from kedge_convert.targets import parse_targets
from kedge_runtime.errors import EngineError

COUNT = 40


def candidate(kl: float, spread: float, seed: int) -> Candidate:
    """Return a candidate whose divergences have a mean of `kl`."""
    noise = np.random.default_rng(seed).normal(0, 1, COUNT)
    noise = (noise - noise.mean()) / noise.std()
    return Candidate(Recipe("int8"), b"", np.zeros((COUNT, 2), np.float32), kl + spread * noise)


def test_a_gain_must_be_larger_than_its_error() -> None:
    stock = candidate(1.0, 0.0, seed=1)
    error = 0.05 / np.sqrt(COUNT)
    for gain, wins in ((0.5 * MARGIN * error, False), (2 * MARGIN * error, True)):
        other = candidate(1.0 - gain, 0.05, seed=2)
        assert closest_ranges([stock, other], own) is (other if wins else stock)


def own(one: Candidate) -> NDArray[np.float64]:
    """Return as many distances on other images, as they are on the first."""
    return one.distances


def test_of_those_that_win_the_nearest_does() -> None:
    first, better, best = (candidate(kl, 0.01, seed=1) for kl in (1.0, 0.6, 0.5))
    assert closest_ranges([first, better, best], own) is best


def test_a_gain_on_the_selection_images_must_hold_on_more() -> None:
    first, clipped = candidate(1.0, 0.01, seed=1), candidate(0.6, 0.01, seed=2)
    outlier = {id(first): np.full(64, 1.0), id(clipped): np.append(np.full(63, 0.6), 60.0)}
    assert closest_ranges([first, clipped], lambda one: outlier[id(one)]) is first


def test_more_images_are_asked_only_where_there_may_be_a_gain() -> None:
    first, worse = candidate(1.0, 0.01, seed=1), candidate(1.1, 0.01, seed=2)

    def never(one: Candidate) -> NDArray[np.float64]:
        raise AssertionError(one)

    assert closest_ranges([first, worse], never) is first
    assert closest_ranges([first], never) is first


def test_one_bad_image_decides_nothing() -> None:
    """The mean of divergences is that of their tail; their roots weigh all images."""
    first, better = candidate(1.0, 0.01, seed=1), candidate(0.7, 0.01, seed=2)
    spoilt = replace(better, kl=np.append(better.kl[:-1], 14.0))
    assert spoilt.kl.mean() > first.kl.mean()
    assert closest_ranges([first, spoilt], lambda one: own(one)[:-1]) is spoilt


def test_the_best_on_all_images_wins_not_the_best_on_the_selection() -> None:
    first, lucky, sound = (candidate(kl, 0.01, seed=1) for kl in (1.0, 0.5, 0.6))
    more = {
        id(first): np.full(128, 1.0),
        id(lucky): np.full(128, 0.9),
        id(sound): np.full(128, 0.6),
    }
    assert closest_ranges([first, lucky, sound], lambda one: more[id(one)]) is sound


def test_a_candidate_runs_on_more_images_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges, stock weights and finer steps all ask for it."""
    one, other = candidate(1.0, 0.1, seed=1), replace(candidate(1.0, 0.1, seed=2), content=b"other")
    asked: list[Candidate] = []

    def run(target: Any, models: Any, each: Candidate) -> NDArray[np.float64]:
        asked.append(each)
        return each.distances

    monkeypatch.setattr(candidates, "_confirmed", run)
    models, target = cast(Any, SimpleNamespace(confirmed={})), parse_targets("tflite:int8")[0]
    for each in (one, other, one):
        whole = candidates.all_distances(target, models, each)
        np.testing.assert_array_equal(whole, np.tile(each.distances, 2))
    assert asked == [one, other]


@pytest.mark.parametrize(
    ("calibration", "held_out"),
    [(1, 1), (10, 3), (30, 10), (60, SELECTION), (100, SELECTION), (200, 33)],
)
def test_few_pictures_hold_out_enough_to_tell(calibration: int, held_out: int) -> None:
    photos = ImageSplit(tuple(Path(str(i)) for i in range(calibration)), ())
    assert len(photos.selection) == held_out
    assert (*photos.preparation, *photos.selection) == photos.calibration


@pytest.mark.parametrize(("images", "wins"), [(60, True), (200, False)])
def test_few_images_dont_speak_against_weights_fitted_to_many(
    monkeypatch: pytest.MonkeyPatch, images: int, wins: bool
) -> None:
    rival, stock = candidate(1.0, 0.3, seed=1), candidate(0.97, 0.3, seed=2)
    surely_better = candidate(0.6, 0.2, seed=2)
    target, nothing = parse_targets("tflite:int8")[0], cast(Any, None)
    photos = ImageSplit(tuple(Path(str(i)) for i in range(images)), ())
    models = cast(Any, SimpleNamespace(images=photos))
    monkeypatch.setattr(candidates, "is_hopeless", lambda *_: False)
    monkeypatch.setattr(candidates, "confirmed", lambda *each: own(each[-1]))
    for one, expected in ((stock, stock if wins else rival), (surely_better, surely_better)):
        made = {"stock": one, "prepared": rival}
        monkeypatch.setattr(candidates, "ranged", lambda *each, made=made: made[each[-1]])
        assert candidates.closest_weights(target, models, nothing) is expected


def test_stock_weights_must_be_closer_on_more_images_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """33 images whose divergences have heavy tails decide nothing."""
    made = {"stock": candidate(0.5, 0.1, seed=1), "prepared": candidate(1.0, 0.1, seed=2)}
    worse = {"stock": np.full(128, 1.2), "prepared": np.full(128, 0.9)}
    target, nothing = parse_targets("tflite:int8")[0], cast(Any, None)
    photos = ImageSplit(tuple(Path(str(i)) for i in range(200)), ())
    models = cast(Any, SimpleNamespace(images=photos))
    monkeypatch.setattr(candidates, "is_hopeless", lambda *_: False)
    monkeypatch.setattr(candidates, "ranged", lambda *each: made[each[-1]])
    for more, wins in ((worse, "prepared"), ({"stock": worse["prepared"]}, "stock")):
        found = {id(made[name]): more.get(name, np.full(128, 1.0)) for name in made}
        monkeypatch.setattr(candidates, "confirmed", lambda *each, f=found: f[id(each[-1])])
        assert candidates.closest_weights(target, models, nothing) is made[wins]


def test_a_candidate_that_cant_be_made_leaves_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = candidate(1.0, 0.0, seed=1)

    def refused(*_: object, **__: object) -> Candidate:
        raise EngineError("failed to create a runtime")

    target, nothing = parse_targets("tflite:int8")[0], cast(Any, None)

    def ranged(*each: Any) -> Candidate:
        return prepared if each[-1] == "prepared" else refused()

    monkeypatch.setattr(candidates, "exported", refused)
    monkeypatch.setattr(candidates, "ranged", ranged)
    for hopeless in (refused, lambda *_: False):
        monkeypatch.setattr(candidates, "is_hopeless", hopeless)
        assert candidates.closest_weights(target, nothing, nothing) is prepared
    monkeypatch.setattr(candidates, "ranged", refused)
    with pytest.raises(EngineError, match="failed to create"):
        candidates.closest_weights(target, nothing, nothing)
