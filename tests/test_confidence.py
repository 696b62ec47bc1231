"""Temperature, thresholds, label sets and their statistics, on made-up outputs."""

from dataclasses import replace
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pytest

from kedge_runtime.arrays import Doubles, Floats, Indices
from kedge_runtime.artefact.confidence import COVERAGES, Confidence
from kedge_runtime.artefact.contract import (
    SCHEMA,
    WITH_CONFIDENCE,
    Contract,
    Label,
    Output,
    Quantisation,
    Tensor,
)
from kedge_runtime.artefact.provenance import Provenance
from kedge_runtime.classify.results import Classes, Rule, probabilities, softmax
from kedge_runtime.classify.second_opinion import logits_of
from kedge_runtime.confidence import binomial, conformal, temperature
from kedge_runtime.confidence.error import calibration_error, gaps
from kedge_runtime.confidence.fit import LabelledOutputs, fitted
from kedge_runtime.confidence.labelled import ImageChoice
from kedge_runtime.errors import ContractError, UsageError

LABELS = tuple(Label(f"c{i}", f"class {i}") for i in range(5))


def drawn(count: int, sharpness: float, seed: int = 0) -> tuple[Floats, Indices]:
    """Return logits [n, 5] that are `sharpness` times too sure, and true classes."""
    random = np.random.default_rng(seed)
    honest = random.normal(0, 2, (count, 5))
    shares = softmax(np.asarray(honest, np.float32)).astype(np.float64)
    truth = (shares.cumsum(axis=1) < random.random((count, 1))).sum(axis=1).clip(0, 4)
    return np.asarray(honest * sharpness, np.float32), np.asarray(truth, np.int64)


def test_an_image_is_chosen_once_and_never_where_it_made_or_checked_the_file() -> None:
    made = Provenance(
        "net",
        "",
        precision="int8",
        target="tflite:int8",
        calibration_images=("a", "b"),
        validation_images=("c",),
    )
    choice = ImageChoice.beside(made)
    refusals, chosen = list[str](), list[str]()
    for mark in ("a", "d", "c", "d", "e", "b"):
        refusals.append(choice.refusal(mark))
        if not refusals[-1]:
            choice.take(mark)
            chosen.append(mark)
    assert chosen == ["d", "e"]
    assert refusals == [
        *("calibration images", "", "validation images"),
        *("repeated images", "", "calibration images"),
    ]


def marked(outputs: Floats, truth: object) -> LabelledOutputs:
    marks = tuple(f"{i:012x}" for i in range(len(outputs)))
    return LabelledOutputs(outputs, np.asarray(truth), marks)


def plain_contract(contracts: dict[str, Contract], output: Output) -> Contract:
    return replace(contracts["onnx"], output=output, labels=LABELS)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_the_sharpness(sharpness: float) -> None:
    logits, truth = drawn(4000, sharpness)
    assert temperature.of_softmax(logits, truth) == pytest.approx(sharpness, rel=0.1)


def test_the_temperature_has_the_least_loss_of_its_neighbours() -> None:
    logits, truth = drawn(300, 2.0)

    right = logits.argmax(axis=1) == truth

    def loss(value: float) -> float:
        sure = softmax(logits / np.float32(value)).max(axis=1)
        return -float(np.log(np.where(right, sure, 1 - sure)).mean())

    found = temperature.of_softmax(logits, truth)
    # Platt's targets move it by about one image in 300.
    assert loss(found) <= min(loss(found * 0.9), loss(found * 1.1))


def test_chance_alone_leaves_the_temperature_at_1() -> None:
    found = [temperature.of_softmax(*drawn(200, 1.0, seed)) for seed in range(40)]
    assert np.mean(np.equal(found, 1)) >= 0.85  # 95 % are expected


def test_images_without_a_mistake_keep_a_finite_temperature() -> None:
    logits = np.eye(5, dtype=np.float32)[np.arange(100) % 5] * 4
    found = temperature.of_softmax(logits, logits.argmax(axis=1))
    assert 0.3 < found < 1.5


def test_wrong_labels_anywhere_do_not_spoil_the_confidence() -> None:
    """A fifth of the labels is of an unlikely class: the likelihood of the truth is misled."""
    random = np.random.default_rng(0)
    logits = np.asarray(5 * np.eye(5)[np.arange(1000) % 5] - 3, np.float32)
    logits += random.normal(0, 0.2, logits.shape).astype(np.float32)
    truth = np.where(random.random(1000) < 0.2, (np.arange(1000) + 1) % 5, np.arange(1000) % 5)
    found = temperature.of_softmax(logits, truth)
    assert softmax(logits / np.float32(found)).max(axis=1).mean() == pytest.approx(0.8, abs=0.03)


def test_the_temperature_of_sigmoids_undoes_the_sharpness() -> None:
    random = np.random.default_rng(1)
    honest = random.normal(-1, 2, (3000, 4))
    true = random.random(honest.shape) < 1 / (1 + np.exp(-honest))
    assert temperature.of_sigmoid(np.float32(2) * honest.astype(np.float32), true) == pytest.approx(
        2, rel=0.08
    )


def test_a_softmax_is_tempered_as_its_logits_are() -> None:
    logits, _ = drawn(50, 1.0)
    ours = probabilities(softmax(logits), Output("softmax", temperature=2.5))
    np.testing.assert_allclose(ours, softmax(logits / np.float32(2.5)), atol=1e-6)
    np.testing.assert_array_equal(
        probabilities(softmax(logits), Output("softmax")), softmax(logits)
    )


def test_a_quantised_probability_of_zero_counts_as_half_a_step() -> None:
    output = Output("softmax", Tensor("int8", Quantisation(1 / 256, -128)))
    logits = logits_of(np.array([[1.0, 0.0]], np.float32), output)
    np.testing.assert_allclose(logits, [[0.0, np.log(1 / 512)]], atol=1e-6)


def test_a_threshold_has_the_largest_f1() -> None:
    values = np.linspace(0, 1, 40, dtype=np.float32)
    true = values > 0.3
    (found,) = temperature.thresholds(values[:, None], true[:, None])
    assert 0.28 < found < 0.32
    ((few),) = temperature.thresholds(values[:, None], (values > 0.9)[:, None])
    assert few == 0.5, "four true images are too few"


def test_the_floor_is_the_rank_with_the_finite_sample_correction() -> None:
    truths = (np.arange(1, 10) / 10).astype(np.float32)
    # ceil(10 * .5) = 5th largest; 90 % would be the 9th, 91 % the 10th, which isn't there.
    floors = conformal.floors(truths)
    assert floors[0] == pytest.approx(0.5)
    assert len(floors) == COVERAGES.index(90) + 1
    assert floors[-1] == pytest.approx(0.1)


def test_label_sets_hold_the_truth_as_often_as_asked() -> None:
    """Split conformal: over many splits the mean coverage is ceil((n + 1) c) / (n + 1)."""
    logits, truth = drawn(600, 3.0)
    shares = softmax(logits)[np.arange(600), truth]
    random, covered = np.random.default_rng(0), []
    for _ in range(200):
        order = random.permutation(600)
        floors = conformal.floors(shares[order[:200]])
        covered.append(np.mean(shares[order[200:]] >= np.float32(conformal.floor_for(0.9, floors))))
    assert np.mean(covered) == pytest.approx(conformal.rank(200, 90) / 201, abs=0.008)


def test_a_floor_reads_back_as_the_same_float32() -> None:
    values = np.random.default_rng(0).random(500).astype(np.float32)
    falling = np.sort(values)[::-1]
    for percent, floor in zip(COVERAGES, conformal.floors(values), strict=False):
        assert np.float32(floor) == falling[conformal.rank(500, percent) - 1]


@pytest.mark.parametrize("coverage", [0.925, 0.4, 0.99])
def test_a_coverage_that_was_not_calibrated_is_refused(coverage: float) -> None:
    with pytest.raises(UsageError, match=r"allowed are whole percents from 50 to 98; more"):
        conformal.floor_for(coverage, conformal.floors(np.arange(60).astype(np.float32)))
    with pytest.raises(UsageError, match="kedge calibrate"):
        conformal.floor_for(coverage, ())


def test_binomial_tails_are_exact() -> None:
    ways = [sum(flips) for flips in combinations_with_replacement((0, 1), 2)]
    assert ways == [0, 1, 2]
    assert binomial.at_least(2, 2, 0.3) == pytest.approx(0.09)
    assert binomial.at_least(1, 2, 0.3) == pytest.approx(0.51)
    # Clopper and Pearson without a failure: share**n = error.
    assert binomial.least_share(60, 60) == pytest.approx(0.05 ** (1 / 60))
    assert binomial.least_share(0, 10) == 0
    assert binomial.at_least(5, 10, binomial.least_share(5, 10)) == pytest.approx(0.05)


def test_the_spread_of_a_coverage_is_that_of_its_beta_distribution() -> None:
    images, others = 200, 300
    rank = conformal.rank(images, 90)
    random = np.random.default_rng(0)
    shares = random.beta(rank, images + 1 - rank, 200_000)
    low, high = binomial.coverage_ends(rank, images)
    np.testing.assert_allclose([low, high], np.quantile(shares, [0.025, 0.975]), atol=1e-3)
    counts = random.binomial(others, shares)
    ends = binomial.covered_ends(rank, images, others)
    np.testing.assert_allclose(ends, np.quantile(counts, [0.025, 0.975]), atol=1)


def test_the_interval_of_the_calibration_error_holds_the_true_one() -> None:
    for sharpness, seed in ((1.0, 1), (2.0, 2)):
        logits, truth = drawn(20_000, sharpness, seed)
        all_gaps = _gaps(logits, truth)
        true = np.abs(all_gaps.mean(axis=0)).sum()
        held = []
        for i in range(66):
            error, low, high = calibration_error(all_gaps[i * 300 : (i + 1) * 300])
            held.append(low <= true <= high)
            assert low <= error <= high
        assert np.mean(held) >= 0.9


def _gaps(logits: Floats, truth: Indices) -> Doubles:
    shares = softmax(logits)
    return gaps(shares.max(axis=1), shares.argmax(axis=1) == truth)


def test_a_fit_halves_the_error_and_keeps_the_best_classes(contracts: dict[str, Contract]) -> None:
    logits, truth = drawn(3000, 3.0)
    contract = plain_contract(contracts, Output())
    found = fitted(contract, marked(logits, truth))
    assert found.confidence
    assert found.confidence.before[0] > 0.05
    assert found.confidence.after[0] < found.confidence.before[0] / 2
    assert found.output.temperature == pytest.approx(3, rel=0.1)
    before, after = (probabilities(logits, one.output) for one in (contract, found))
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))
    assert (found.confidence.fitted, found.confidence.measured) == (1500, 1500)
    again = fitted(found, marked(logits, truth))
    assert again == found, "an earlier temperature is replaced, not applied twice"


def test_the_order_of_the_images_changes_nothing(contracts: dict[str, Contract]) -> None:
    logits, truth = drawn(200, 2.0)
    one, order = marked(logits, truth), np.random.default_rng(3).permutation(200)
    contract = plain_contract(contracts, Output())
    assert fitted(contract, one) == fitted(contract, one.part(order))


def test_independent_classes_get_thresholds_and_sets(contracts: dict[str, Contract]) -> None:
    random = np.random.default_rng(5)
    honest = random.normal(-1, 2, (1500, 5))
    true = random.random(honest.shape) < 1 / (1 + np.exp(-honest))
    # Shifted logits: the default threshold of .5 misses most labels.
    logits = np.asarray(honest - 2, np.float32)
    contract = plain_contract(contracts, Output(activation="sigmoid"))
    found = fitted(contract, marked(logits, true))
    assert found.confidence
    assert found.confidence.f1_before
    assert found.confidence.f1_after
    assert found.confidence.f1_after[1] > found.confidence.f1_before[2], "intervals apart"
    assert len(found.output.thresholds) == 5
    values = probabilities(logits, found.output)
    held = np.where(true, values, 1).min(axis=1) >= np.float32(
        conformal.floor_for(0.9, found.confidence.floors)
    )
    assert held.mean() == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(
    ("output", "count", "reason"),
    [
        (Output(), 99, "99 labelled images that nothing else used, at least 100 are needed"),
        (Output("features"), 200, "features, which have no confidence"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    contracts: dict[str, Contract], output: Output, count: int, reason: str
) -> None:
    logits, truth = drawn(count, 1.0)
    with pytest.raises(UsageError, match=reason):
        fitted(plain_contract(contracts, output), marked(logits, truth))


CONFIDENCE = Confidence(
    50, 100, (0.1, 0.05, 0.2), (0.02, 0.0, 0.05), floors=(0.6, 0.5, 0.4), images=("00",)
)


def test_a_contract_with_a_confidence_needs_the_newer_schema(
    contracts: dict[str, Contract],
) -> None:
    plain = contracts["onnx"]
    assert plain.schema == SCHEMA
    assert "confidence" not in plain.to_json()
    assert "validation_images" not in plain.to_json()
    marks = replace(plain.provenance, validation_images=("00",))
    for changed in (replace(plain, confidence=CONFIDENCE), replace(plain, provenance=marks)):
        assert changed.schema == WITH_CONFIDENCE
        assert Contract.from_json(changed.to_json()) == changed


@pytest.mark.parametrize(
    "change",
    [{"measured": 0}, {"after": (2.0, 0, 0)}, {"floors": (0.1, 0.2)}, {"floors": (0.5,) * 51}],
)
def test_an_impossible_confidence_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ContractError):
        replace(CONFIDENCE, **change)


def test_a_result_holds_the_set_of_a_coverage() -> None:
    classes = Classes(LABELS, floors=(0.5, 0.3, 0.1, 0.01))
    values = np.array([0.05, 0.55, 0.32, 0.05, 0.03], np.float32)

    def result(coverage: float, top: int = 5) -> tuple[list[int], int | None, bool]:
        found = classes.result(values, top, Rule(coverage=coverage))
        return [each.index for each in found.predictions], found.set_size, found.unknown

    assert result(0.5) == ([1], 1, False)
    assert result(0.51) == ([1, 2], 2, False)
    assert result(0.51, top=1) == ([1], 2, True), "larger than top"
    assert result(0.53, top=3) == ([1, 2, 0], 5, True)
    sure = replace(classes, floors=(0.9,)).result(values, 5, Rule(coverage=0.5))
    assert (sure.predictions, sure.set_size, sure.unknown) == ((), 0, True)
    assert sure.to_dict()["set_size"] == 0
    assert "set_size" not in classes.result(values).to_dict()
