"""Every figure of a report, against loops that a child could follow, and scikit-free oracles."""

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kedge_runtime.artefact.contract import Label
from kedge_runtime.commands import drift_table
from kedge_runtime.drift import breakdown, report, summary
from kedge_runtime.drift.evidence import Evidence
from kedge_runtime.drift.measure import NONE, ROW, Part
from kedge_runtime.drift.summary import GateLimits
from kedge_runtime.errors import UsageError

stats = pytest.importorskip("scipy.stats")

CLASSES = 6
ARTEFACT = report.ArtefactDrift("a", "", "t:int8", "int8", "litert", "x", 1, None, 100, 0.25)


def _evidence(count: int = 400, *, labelled: bool = True, seed: int = 0) -> Evidence:
    """Return made-up answers: the artefact is right less often, above all in class 2."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, count + 10)
    images = np.sort(rng.choice(count + 10, count, replace=False))
    rows = np.zeros(count, ROW)
    rows["image"] = images
    for side, right in (("reference", 0.9), ("artefact", 0.8)):
        for row, true in zip(rows, truth[images], strict=True):
            chance = right - 0.4 * (side == "artefact" and true == 2)
            order = rng.permutation(CLASSES)
            best = true if rng.uniform() < chance else order[0]
            row[side]["top"] = [best, *(c for c in order if c != best)][:5]
        rows[side]["confidence"] = rng.uniform(0.3, 1, count)
        rows[side]["margin"] = rng.uniform(0, 1, count)
        rows[side]["entropy"] = rng.uniform(0, 1, count)
    for name in ("kl", "signal", "noise", "cosine", "max_error", "mean_error"):
        rows[name] = rng.uniform(0, 1, count)
    names = [f"{i}.jpg" for i in range(count + 10)]
    labels = [Label(f"n{i}", f"class {i}") for i in range(CLASSES)]
    return Evidence(names, labels, Part(rows, rows["kl"] / 100), truth if labelled else None)


def _drift(evidence: Evidence, limits: GateLimits | None = None) -> report.Drift:
    return summary.summarise(evidence, ARTEFACT, limits or GateLimits())


@pytest.mark.parametrize("k", [1, 5])
def test_accuracy_by_counting(k: int) -> None:
    evidence = _evidence()
    assert evidence.true is not None
    cells = {(a, b): 0 for a in (0, 1) for b in (0, 1)}
    for row, true in zip(evidence.rows, evidence.true, strict=True):
        cells[true in row["reference"]["top"][:k], true in row["artefact"]["top"][:k]] += 1
    drift = _drift(evidence)
    found = drift.top1 if k == 1 else drift.top5
    assert found is not None
    pairs = found.pairs
    assert (pairs.both, pairs.lost, pairs.gained, pairs.neither) == (
        cells[1, 1],
        cells[1, 0],
        cells[0, 1],
        cells[0, 0],
    )
    assert found.drop.value == pytest.approx(found.reference - found.artefact)
    assert found.drop.low < found.drop.value < found.drop.high
    expected = stats.binomtest(cells[1, 0], cells[1, 0] + cells[0, 1]).pvalue
    assert found.mcnemar == pytest.approx(expected)


def test_agreement_and_flips_by_counting() -> None:
    evidence = _evidence()
    drift = _drift(evidence)
    best = [(row["reference"]["top"][0], row["artefact"]["top"][0]) for row in evidence.rows]
    different = [i for i, (a, b) in enumerate(best) if a != b]
    assert drift.flips.count == len(different) > 100
    assert drift.agreement.value == pytest.approx(1 - len(different) / 400)
    within = [row["reference"]["top"][0] in row["artefact"]["top"] for row in evidence.rows]
    assert drift.agreement_top5 is not None
    assert drift.agreement_top5.value == np.mean(within)
    margins = evidence.rows["reference"]["margin"]
    for found in drift.flips.by_margin:
        inside = [i for i in range(400) if found.low <= margins[i] < found.high]
        assert found.images == len(inside)
        assert found.flips == len(set(inside) & set(different))
    assert len(drift.flips.listed) == breakdown.MAX_LISTED
    surest = max(different, key=lambda i: margins[i])
    first = drift.flips.listed[0]
    assert first.image == evidence.names[evidence.rows["image"][surest]]
    assert first.reference.margin == margins[surest]
    assert first.reference.best is not None
    assert first.artefact.best is not None
    assert first.reference.best.index == best[surest][0]
    assert first.artefact.best.name == f"class {best[surest][1]}"
    assert evidence.true is not None
    assert first.truth == f"class {evidence.true[surest]}"


def test_sets_of_independent_classes_flip_when_any_label_does() -> None:
    evidence = replace(_evidence(20, labelled=False), multi_label=True)
    rows = evidence.rows
    rows["changed"][[3, 5]] = True
    rows["reference"]["margin"][[3, 5]] = [0.1, 0.2]
    for side, top, count in (("reference", [2, 4], 7), ("artefact", [], 0)):
        rows[side]["top"] = NONE
        rows[side]["top"][:, : len(top)] = top
        rows[side]["labels"] = count
    drift = _drift(evidence)
    assert (drift.agreement_by, drift.agreement.value) == ("labels", 0.9)
    assert {drift.agreement_top5, drift.per_class, drift.top1, drift.calibration} == {None}
    first = drift.flips.listed[0]
    assert (drift.flips.count, first.image) == (2, evidence.names[rows["image"][5]])
    assert (first.reference.best, str(first.reference.labels)) == (
        None,
        "class 2 + class 4 + 5 more",
    )
    assert str(first.artefact.labels) == "no label"
    said = drift_table.table(drift)
    assert "label agreement" in said
    # A unit stands beside its name: behind the figure it would be in the next column.
    assert re.search(r"KL in nats +\d+\.\d+ .*\n +SQNR in dB +[\d.]+ +cosine", said)
    assert "class 2 + class 4 + 5 more -> no label" in said
    assert "top-5" not in said
    assert "classes drifted" not in said


def test_a_flip_tells_confidence_and_margin_of_both_sides() -> None:
    evidence = _evidence()
    places = {evidence.names[row["image"]]: row for row in evidence.rows}
    for flip in breakdown.flips(evidence).listed:
        for side, told in (("reference", flip.reference), ("artefact", flip.artefact)):
            row = places[flip.image][side]
            assert told.best is not None
            assert (told.best.probability, told.margin) == (row["confidence"], row["margin"])


def test_flips_of_sets_tell_their_margin() -> None:
    evidence = replace(_evidence(20, labelled=False), multi_label=True)
    evidence.rows["changed"][3] = True
    (flip,) = breakdown.flips(evidence).listed
    assert flip.reference.margin == evidence.rows["reference"]["margin"][3]


def test_equal_margins_are_listed_in_the_order_of_the_images() -> None:
    evidence = _evidence(400)
    evidence.rows["reference"]["margin"] = 0.5
    listed = [int(flip.image.split(".")[0]) for flip in breakdown.flips(evidence).listed]
    assert listed == sorted(listed)


def test_a_bin_of_margins_holds_its_lower_edge() -> None:
    evidence = _evidence(20)
    evidence.rows["reference"]["margin"] = 0.5
    evidence.rows["reference"]["margin"][:3] = [0.0, 0.05, 0.1]
    found = [box.images for box in breakdown.flips(evidence).by_margin]
    # 0.05 and 0.1 as float32 lie just above the edges; 0.0 is the first bin's own.
    assert found == [1, 1, 1, 0, 17, 0, 0]
    evidence.rows["reference"]["margin"] = 0.0
    empty = breakdown.flips(evidence).by_margin
    assert [box.images for box in empty] == [20, 0, 0, 0, 0, 0, 0]


def test_a_margin_of_one_is_in_the_last_bin() -> None:
    evidence = _evidence(20)
    evidence.rows["reference"]["margin"] = 1.0
    assert [found.images for found in breakdown.flips(evidence).by_margin] == [0] * 6 + [20]


def test_calibration_by_counting() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0, 1, 1000)
    confidence[:3] = [1.0, 1 / 15, 0.0]
    right = rng.uniform(size=1000) < confidence**2
    found = breakdown.calibration(confidence, right)
    total = 0.0
    for i, box in enumerate(found.bins):
        # (low, high], as in Guo et al.; the first bin has its 0 too.
        inside = [
            j
            for j in range(1000)
            if i == min(14, max(0, math.ceil(round(confidence[j] * 15, 9)) - 1))
        ]
        assert box.images == len(inside)
        assert box.accuracy == pytest.approx(np.mean(right[inside]))
        assert box.confidence == pytest.approx(np.mean(confidence[inside]))
        total += len(inside) * abs(float(np.mean(right[inside]) - np.mean(confidence[inside])))
    assert found.ece == pytest.approx(total / 1000)
    assert found.ece == pytest.approx(np.mean(confidence - confidence**2), abs=0.03)


def test_bins_of_confidence_tell_their_edges_and_more_than_1_is_in_the_last() -> None:
    found = breakdown.calibration(np.array([1.0000001, 0.1]), np.array([True, False]))
    edges = [(box.low, box.high) for box in found.bins]
    np.testing.assert_allclose(edges, [(i / 15, (i + 1) / 15) for i in range(15)])
    assert found.bins[-1].images == 1


def test_bins_without_images_at_the_end_are_there() -> None:
    found = breakdown.calibration(np.array([0.01, 0.5]), np.array([True, False]))
    assert [box.images for box in found.bins] == [1] + [0] * 6 + [1] + [0] * 7


def test_both_sides_calibration_and_the_difference() -> None:
    evidence = _evidence()
    found = breakdown.calibrations(evidence)
    assert found is not None and evidence.true is not None
    errors = []
    for side, told in (("reference", found.reference), ("artefact", found.artefact)):
        rows = evidence.rows[side]
        expected = breakdown.calibration(rows["confidence"], rows["top"][:, 0] == evidence.true)
        assert told == expected
        errors.append(told.ece)
    assert found.shift == errors[1] - errors[0] != 0


def test_an_empty_bin_has_no_accuracy() -> None:
    found = breakdown.calibration(np.array([0.5]), np.array([True]))
    assert found.ece == 0.5
    assert found.bins[0].accuracy is None


def test_the_class_that_drifted_is_found_and_no_other() -> None:
    evidence = _evidence(3000)
    found = breakdown.per_class(evidence)
    assert (found.by, found.tested) == ("truth", CLASSES)
    first = found.classes[0]
    assert (first.index, first.id) == (2, "n2")
    assert evidence.true is not None
    right = [evidence.best(side)[evidence.true == 2] == 2 for side in ("reference", "artefact")]
    lost, gained = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert (first.lost, first.gained, first.images) == (lost, gained, len(right[0]))
    assert first.p == pytest.approx(stats.binomtest(lost, lost + gained).pvalue)
    p = [each.p for each in found.classes]
    assert [each.q for each in found.classes] == pytest.approx(stats.false_discovery_control(p))
    assert found.drifted == sum(each.q <= 0.05 for each in found.classes)
    assert (first.name, found.level) == ("class 2", 0.05)
    flipped = evidence.flipped & (evidence.true == 2)
    assert first.flips == int(flipped.sum())


def test_without_labels_classes_are_told_by_their_flips() -> None:
    evidence = _evidence(3000, labelled=False)
    found = breakdown.per_class(evidence)
    assert found.by == "reference"
    first = found.classes[0]
    assert (first.index, first.lost, first.gained) == (2, None, None)
    inside = evidence.best("reference") == 2
    table = [
        [(evidence.flipped & inside).sum(), (~evidence.flipped & inside).sum()],
        [(evidence.flipped & ~inside).sum(), (~evidence.flipped & ~inside).sum()],
    ]
    assert first.p == pytest.approx(stats.fisher_exact(table, "greater").pvalue, rel=1e-6)


def test_chance_alone_is_seldom_called_drift() -> None:
    """Both sides equally good: a discovery is false, and comes in at most LEVEL of the draws."""
    rng = np.random.default_rng(0)
    false = 0
    for _ in range(400):
        evidence = _evidence(10)
        rows = np.zeros(600, ROW)
        truth = rng.integers(0, CLASSES, 600)
        for side in ("reference", "artefact"):
            rows[side]["top"] = NONE
            rows[side]["top"][:, 0] = np.where(rng.uniform(size=600) < 0.8, truth, -1)
        rows["image"] = np.arange(600)
        drawn = replace(evidence, part=Part(rows, np.zeros(600)), truth=truth)
        false += breakdown.per_class(drawn).drifted > 0
    assert false / 400 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)


def test_means_and_distances() -> None:
    evidence = _evidence()
    rows, drift = evidence.rows, _drift(evidence)
    shift = rows["artefact"]["entropy"] - rows["reference"]["entropy"]
    assert drift.entropy.shift.value == pytest.approx(shift.mean())
    low, high = stats.norm.interval(0.95, shift.mean(), shift.std(ddof=1) / 20)
    assert (drift.entropy.shift.low, drift.entropy.shift.high) == pytest.approx((low, high))
    distances = drift.distances
    assert distances.kl == pytest.approx(rows["kl"].mean())
    ratio = rows["signal"].sum() / rows["noise"].sum()
    assert distances.sqnr == pytest.approx(10 * math.log10(ratio))
    assert distances.max_error == rows["max_error"].max()
    assert drift.latency.median_ms == pytest.approx(np.median(rows["kl"]) * 10, abs=1e-4)


def test_outputs_of_other_kinds_have_no_distances() -> None:
    evidence = _evidence()
    for name in ("signal", "noise", "cosine", "max_error", "mean_error"):
        evidence.rows[name] = np.nan
    distances = _drift(evidence).distances
    assert distances.kl > 0
    assert (distances.sqnr, distances.cosine, distances.max_error) == (None, None, None)


@pytest.mark.parametrize(
    ("labelled", "limits", "names"),
    [
        (True, {}, ["min_agreement"]),
        (False, {}, ["min_agreement"]),
        (True, {"min_agreement": 0.5}, ["min_agreement"]),
        (True, {"min_agreement": 0.5, "max_drop": 0.3}, ["max_drop", "min_agreement"]),
    ],
)
def test_gates_that_are_asked_for(
    *, labelled: bool, limits: dict[str, Any], names: list[str]
) -> None:
    drift = _drift(_evidence(labelled=labelled), GateLimits(**limits))
    assert [gate.name for gate in drift.gates] == names
    assert (drift.top1 is None) == (drift.calibration is None) == (not labelled)


def test_the_worst_gate_is_the_verdict() -> None:
    assert _drift(_evidence(), GateLimits(0.5, 0.1)).verdict == "PASS"
    assert _drift(_evidence(), GateLimits(0.5, 0.95)).verdict == "FAIL"
    value = _drift(_evidence()).agreement.value
    assert _drift(_evidence(), GateLimits(0.5, value)).verdict == "INCONCLUSIVE"
    assert _drift(_evidence(), GateLimits(0.01, value)).verdict == "FAIL"


@pytest.mark.parametrize("count", [0, 1])
def test_too_little_to_compare(count: int) -> None:
    evidence = replace(_evidence(), part=Part(np.zeros(count, ROW), np.zeros(count)))
    with pytest.raises(UsageError, match=f"{count} images? readable, at least 2"):
        _drift(evidence)


@pytest.mark.parametrize("labelled", [True, False])
def test_confusions_by_counting(*, labelled: bool) -> None:
    evidence = _evidence(labelled=labelled)
    found = breakdown.confusion(evidence)
    assert found is not None
    assert [name.index for name in found.classes] == list(range(CLASSES))
    rows = evidence.best("reference") if evidence.true is None else evidence.true
    assert found.by == ("truth" if labelled else "reference")
    assert (found.reference is None) == (not labelled)
    for side, matrix in (("reference", found.reference), ("artefact", found.artefact)):
        if matrix is None:
            continue
        counted = np.zeros((CLASSES, CLASSES), int)
        for row, answer in zip(rows, evidence.best(side), strict=True):
            counted[row, answer] += 1
        assert np.array_equal(matrix, counted)
        for mistake in found.mistakes:
            expected = counted[mistake.row.index, mistake.column.index]
            assert getattr(mistake, side) == expected
    most = [max(mistake.artefact, mistake.reference or 0) for mistake in found.mistakes]
    assert most == sorted(most, reverse=True)
    assert len(most) == breakdown.MAX_MISTAKES


def test_many_classes_have_no_matrix_but_their_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = breakdown.confusion(_evidence())
    monkeypatch.setattr(breakdown, "MAX_CLASSES", CLASSES - 1)
    found = breakdown.confusion(_evidence())
    assert found is not None
    assert whole is not None
    assert (found.classes, found.reference, found.artefact) == ((), (), ())
    assert found.mistakes == whole.mistakes


def test_coverage_by_counting() -> None:
    evidence = _evidence()
    found = breakdown.coverage(evidence)
    assert found is not None
    for side, points in (("reference", found.reference), ("artefact", found.artefact)):
        for point in points:
            sure = [
                row
                for row in range(400)
                if evidence.rows[side][row]["confidence"] >= point.threshold
            ]
            assert point.answered == len(sure)
            assert evidence.true is not None
            assert point.right == sum(evidence.best(side)[i] == evidence.true[i] for i in sure)
        assert points[0].answered == 400
    unlabelled = breakdown.coverage(_evidence(labelled=False))
    assert unlabelled is not None
    assert {point.right for point in unlabelled.artefact} == {None}


def test_each_class_tells_what_both_sides_get_right() -> None:
    evidence = _evidence()
    assert evidence.true is not None
    for each in breakdown.per_class(evidence).classes:
        inside = evidence.true == each.index
        for side, right in (("reference", each.reference), ("artefact", each.artefact)):
            assert right == int((evidence.best(side)[inside] == each.index).sum())
    assert {each.artefact for each in breakdown.per_class(_evidence(labelled=False)).classes} == {
        None
    }
