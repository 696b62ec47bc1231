"""The verdict: what passes, and that nothing unmeasurable does."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from kedge_convert.parity import (
    OwnAnswers,
    OwnPixels,
    Parity,
    compare,
    interval,
    with_drop,
    with_own_pixels,
)
from kedge_convert.targets import TARGETS
from kedge_convert.verdict import LIMITS, ParityLimits, UserLimits, judge, left_open, limits_for
from kedge_runtime.artefact.contract import Output
from kedge_runtime.artefact.kinds import Kind, Precision
from kedge_runtime.classify.results import sigmoid
from kedge_runtime.drift.statistics import paired_drop

NAN = float("nan")
GOOD = Parity(
    images=100,
    agreement=0.99,
    agreement_top5=1.0,
    logit_max_error=0.2,
    logit_mean_error=0.01,
    relative_error=0.01,
    cosine=0.999,
    sqnr=40.0,
    kl=0.001,
)
LIMIT = ParityLimits(agreement=0.99, relative_error=0.01)


def test_exactly_on_the_limits_passes() -> None:
    assert judge(GOOD, LIMIT).passed
    assert judge(GOOD, LIMIT).reasons == ()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"agreement": 0.98}, "agreement 0.980 is below 0.99"),
        ({"relative_error": 0.0101}, "logit error 0.01 of the largest logit is above 0.01"),
        ({"agreement": NAN}, "agreement nan"),
        ({"relative_error": NAN}, "logit error nan"),
        ({"relative_error": float("inf")}, "logit error inf"),
    ],
)
def test_one_miss_fails_and_says_why(change: dict[str, float], word: str) -> None:
    verdict = judge(replace(GOOD, **change), LIMIT)  # type: ignore[arg-type]
    assert not verdict.passed
    assert [word in reason for reason in verdict.reasons] == [True]


def test_every_miss_is_named() -> None:
    assert len(judge(replace(GOOD, agreement=0.1, relative_error=9.0), LIMIT).reasons) == 2


@pytest.mark.parametrize("where", [slice(1), slice(None)], ids=["one picture", "all"])
def test_nan_answers_fail_the_loosest_limits(where: slice) -> None:
    reference = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    candidate = reference.copy()
    candidate[where] = np.nan
    assert not judge(compare(reference, candidate, Output()), ParityLimits(0.0, 1e9)).passed


def test_compare_measures_all_and_counts_the_pictures() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    same = compare(rows, rows, Output())
    assert (same.images, same.agreement, same.agreement_top5) == (3, 1.0, 1.0)
    assert (same.logit_max_error, same.logit_mean_error, same.relative_error) == (0, 0, 0)


def test_every_target_has_limits() -> None:
    assert {target.precision for target in TARGETS} <= set(LIMITS) <= set(get_args(Precision))


@pytest.mark.parametrize("precision", LIMITS)
def test_the_users_limits_replace_only_what_they_name(precision: Precision) -> None:
    default = LIMITS[precision]
    assert default.by_interval
    assert limits_for(precision, UserLimits(agreement=None, relative_error=None)) == default
    assert limits_for(precision, UserLimits(agreement=0.5)) == replace(
        default, agreement=0.5, by_interval=False
    )
    written = replace(default, relative_error=0.0, of_most=False)
    assert limits_for(precision, UserLimits(relative_error=0.0)) == written


@pytest.mark.parametrize(("wrong", "passed"), [(1, True), (4, True), (6, False)])
def test_one_image_beyond_the_ranges_rejects_no_integers(wrong: int, passed: bool) -> None:
    """The agreement counts it like any other; logits that are all off, no agreement sees."""
    reference = np.tile(np.array([5, 1, 0], np.float32), (50, 1))
    off = reference.copy()
    off[:wrong] += 4
    found = compare(reference, off, Output())
    assert judge(found, limits_for("int8")).passed is passed
    assert not judge(replace(found, kl=0.17), limits_for("int8")).passed  # a wrong zero point's
    assert not judge(found, limits_for("int8", UserLimits(relative_error=0.5))).passed
    assert not judge(found, limits_for("float16")).passed


@pytest.mark.parametrize(
    ("agreed", "passed", "is_left_open"),
    [(84, False, False), (85, True, True), (89, True, True), (90, True, False), (100, True, False)],
)
def test_a_default_agreement_misses_with_its_whole_interval(
    agreed: int, passed: bool, is_left_open: bool
) -> None:
    """89 of 100 rejected a file of which .950 agreed on 1500 others; its interval was .814..937."""
    found = replace(GOOD, agreement=agreed / 100, agreement_interval=interval(agreed / 100, 100))
    usual, own = limits_for("int8"), limits_for("int8", UserLimits(agreement=0.9))
    assert judge(found, usual).passed == passed
    assert bool(left_open(found, usual)) == is_left_open
    assert judge(found, own).passed == (agreed >= 90)
    assert left_open(found, own) == ()


def test_what_is_left_open_is_told() -> None:
    found = replace(GOOD, agreement=0.89, agreement_interval=interval(0.89, 100))
    assert left_open(found, limits_for("int8")) == (
        "agreement 0.890 on 100 images, 95 % CI 0.814 to 0.937: too few images to decide on "
        "0.9; add images to --calibrate",
    )


def test_an_agreement_has_the_interval_that_its_pictures_leave() -> None:
    """Against scipy's Wilson interval."""
    stats = pytest.importorskip("scipy.stats")
    reference = np.eye(40, dtype=np.float32)
    candidate = reference.copy()
    candidate[0] = candidate[1]
    parity = compare(reference, candidate, Output())
    expected = stats.binomtest(39, 40).proportion_ci(method="wilson")
    assert parity.agreement == 39 / 40
    assert parity.agreement_interval == pytest.approx((expected.low, expected.high))


def test_features_have_no_interval() -> None:
    rows = np.eye(4, dtype=np.float32)
    assert compare(rows, rows, Output("features")).agreement_interval is None


MULTI = Output("logits", activation="sigmoid")


@pytest.mark.parametrize("kind", ["logits", "sigmoid"])
def test_independent_classes_agree_by_their_sets(kind: Kind) -> None:
    """The best class changes in the first row and no label does; the second's is the other way."""
    reference = np.array([[3.0, 2.9, -1.0], [3.0, 0.1, -1.0], [-1.0, -2.0, -3.0]], np.float32)
    candidate = np.array([[2.9, 3.0, -1.0], [3.0, -0.1, -1.0], [-2.0, -1.0, -3.0]], np.float32)
    if kind == "sigmoid":
        reference, candidate = sigmoid(reference), sigmoid(candidate)
    found = compare(reference, candidate, Output(kind, activation="sigmoid"))
    assert (found.agreement_by, found.agreement, found.agreement_top5) == ("labels", 2 / 3, None)
    assert found.headline == ("agreement of label sets", 2 / 3)
    assert found.agreement_interval is not None
    reasons = judge(found, ParityLimits(0.9, 9.0)).reasons
    assert reasons == ("agreement of label sets 0.667 is below 0.9",)


def test_sets_are_those_of_the_contracts_thresholds() -> None:
    reference, candidate = (np.array([[x, 0.0, 0.0]], np.float32) for x in (0.5, 1.5))
    assert compare(reference, candidate, MULTI).agreement == 1
    apart = replace(MULTI, thresholds=(0.7, 0.5, 0.5))
    assert compare(reference, candidate, apart).agreement == 0


def test_a_drop_is_of_pairs() -> None:
    reference = np.eye(4, dtype=np.float32)[[0, 1, 2, 3]]
    candidate = np.eye(4, dtype=np.float32)[[1, 1, 2, 0]]
    plain = compare(reference, candidate, Output())
    assert with_drop(plain, reference, candidate, None) == plain
    found = with_drop(plain, reference, candidate, [0, 1, 3, 0])  # one lost, one gained
    assert found.drop == 0
    low, high = paired_drop(1, 1, 4)
    assert found.drop_interval == (float(low), float(high))


@pytest.mark.parametrize(
    ("share", "passes"), [(1.0, True), (0.955, True), (0.9, False), (0.23, False)]
)
def test_own_pixels_are_judged_by_their_interval(share: float, passes: bool) -> None:
    own = OwnPixels("Keras", 100, share, interval(share, 100), share)
    verdict = judge(replace(GOOD, own_pixels=own), LIMIT)
    assert verdict.passed == passes
    assert passes or "agreement on own pixels, loaded by Keras" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("of_float", "blamed"),
    [(0.98, "the float model has 0.980"), (0.85, "kedge fit-input finds it")],
)
def test_what_only_the_precision_costs_is_not_blamed_on_the_pixels(
    of_float: float, blamed: str
) -> None:
    own = OwnPixels("Keras", 100, 0.8, interval(0.8, 100), of_float)
    (reason,) = judge(replace(GOOD, own_pixels=own), LIMIT).reasons
    assert blamed in reason
    assert ("fit-input" in reason) == (of_float < 0.9)


def test_both_models_are_held_against_own_pixels() -> None:
    own = np.eye(4, dtype=np.float32)
    reference, candidate = own[[0, 1, 2, 0, 0]], own[[0, 1, 0, 0, 0]]
    plain = compare(reference, candidate, Output())
    found = with_own_pixels(
        plain, OwnAnswers("Keras", own), reference, candidate, Output()
    ).own_pixels
    assert found is not None
    assert (found.images, found.agreement, found.float_agreement) == (4, 0.5, 0.75)


def test_a_bad_artefact_is_not_blamed_on_the_pipeline() -> None:
    own = OwnPixels("Keras", 100, 0.3, interval(0.3, 100), 0.3)
    bad = replace(GOOD, agreement=0.3, own_pixels=own)
    assert [reason for reason in judge(bad, LIMIT).reasons if "own pixels" in reason] == []
