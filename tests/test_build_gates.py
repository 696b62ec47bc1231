"""Gates and baselines of `kedge build`, on measurements that were made elsewhere."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import build_reports
from kedge_convert.matrix import lock as baseline
from kedge_convert.matrix import verdict as cell_verdict
from kedge_convert.matrix.cache import Entry
from kedge_convert.matrix.cells import groups
from kedge_convert.matrix.config import BuildConfig, BuildGates, ModelConfig
from kedge_convert.matrix.evidence import CellEvidence, ratio
from kedge_convert.matrix.lock import Accepted, Lock
from kedge_convert.matrix.record import Baseline, BuildReport, CellReport, accuracy_gate
from kedge_convert.matrix.verdict import judge
from kedge_runtime.checks.hardware import Finding
from kedge_runtime.drift import gates as drift_gates
from kedge_runtime.drift.gates import Estimate, Pairs
from kedge_runtime.drift.report import Drift
from kedge_runtime.errors import ContractError, UsageError

FACTS = {
    "digest": "sha256:00",
    "bytes": 1000,
    "reasons": [],
    "notes": [],
    "ratio": 0.25,
    "recipe": {"precision": "int8"},
    "images": 20,
    "seconds": 1.0,
}


@pytest.fixture(scope="module")
def drift(tmp_path_factory: pytest.TempPathFactory, artefacts: Path) -> Drift:
    """Return a real drift, its counts replaced: of 1000 images 20 lost, 5 gained, 30 flipped."""
    folder, artefact = tmp_path_factory.mktemp("desk"), artefacts / "tiny.tflite"
    found = build_reports.measured(build_reports.write_desk(folder, artefact), artefact)
    pairs = Pairs(900, 20, 5, 75)
    assert found.top1
    return replace(
        found,
        images=1000,
        flips=replace(found.flips, count=30),
        top1=replace(found.top1, pairs=pairs, drop=pairs.drop),
        agreement=Estimate(0.97, 0.957, 0.979),
    )


def found(asked: BuildGates, drift: Drift | None = None, **more: object) -> CellEvidence:
    model = ModelConfig("demo", "demo", images="photos", targets=("tflite:float32",), gates=asked)
    cell = groups(BuildConfig((model,)))[0].cells[0]
    return replace(CellEvidence(cell, Entry(FACTS), drift), **more)  # type: ignore[arg-type]


# The drop is .015 (.0055 to .0257), by Tango; the agreement .97 (.9575 to .9789), by Wilson.
@pytest.mark.parametrize(
    ("asked", "verdicts"),
    [
        (BuildGates(), {"max_drop": "INCONCLUSIVE"}),
        (BuildGates(max_drop=0.03), {"max_drop": "PASS"}),
        (BuildGates(max_drop=0.005), {"max_drop": "FAIL"}),
        (BuildGates(min_agreement=0.95), {"min_agreement": "PASS"}),
        (BuildGates(min_agreement=0.97), {"min_agreement": "INCONCLUSIVE"}),
        (BuildGates(min_agreement=0.99), {"min_agreement": "FAIL"}),
        (BuildGates(max_drop=0.03, max_bytes=1000), {"max_drop": "PASS", "max_bytes": "PASS"}),
        (BuildGates(max_drop=0.03, max_bytes=999), {"max_drop": "PASS", "max_bytes": "FAIL"}),
    ],
)
def test_gates_look_at_the_interval(
    drift: Drift, asked: BuildGates, verdicts: dict[str, str]
) -> None:
    judged = judge(found(asked, drift), None)
    assert {gate.name: gate.verdict for gate in judged} == {"conversion": "PASS", **verdicts}


def test_an_open_gate_says_how_many_images_decide(drift: Drift) -> None:
    (_, gate) = judge(found(BuildGates(max_drop=0.01), drift), None)
    assert gate.images_needed
    assert gate.images_needed > 1000
    assert "more images would decide (in nine of ten cases)" in gate.message
    assert "top-1 drop 1.5 points (0.6 to 2.6), at most 1.0 points" in gate.message


def test_without_images_the_converters_check_is_all() -> None:
    assert [gate.name for gate in judge(found(BuildGates()), None)] == ["conversion"]


def test_a_drop_needs_the_true_classes(drift: Drift) -> None:
    unlabelled = replace(drift, top1=None, calibration=None)
    with pytest.raises(UsageError, match="needs the ground truth of photos"):
        judge(found(BuildGates(max_drop=0.1), unlabelled), None)
    judged = judge(found(BuildGates(), unlabelled), None)
    assert [(gate.name, gate.verdict) for gate in judged][1:] == [("min_agreement", "PASS")]


def test_what_the_converter_rejected_has_failed(drift: Drift) -> None:
    entry = Entry({**FACTS, "reasons": ["top-1 agreement is 0.5", "and more"]})
    (gate,) = judge(found(BuildGates(), entry=entry), None)
    assert (gate.name, gate.verdict) == ("conversion", "FAIL")
    assert gate.message == "top-1 agreement is 0.5; and more"


@pytest.mark.parametrize(
    ("limit", "verdict"), [(0.6, "PASS"), (0.5, "INCONCLUSIVE"), (0.4, "FAIL")]
)
def test_latency_is_judged_on_its_interval(limit: float, verdict: str) -> None:
    value = Estimate(0.5, 0.45, 0.55)
    (_, gate) = [
        cell_verdict.conversion(found(BuildGates())),
        cell_verdict.GATES["max_latency_ratio"](found(BuildGates(), latency_ratio=value), limit),
    ]
    assert (gate.verdict, gate.value) == (verdict, value)
    assert ("the next run times it again" in gate.message) == (verdict == "INCONCLUSIVE")
    assert "images" not in gate.message


def test_a_latency_without_its_float32_artefact_fails() -> None:
    (_, gate) = judge(found(BuildGates(max_latency_ratio=1.0)), None)
    assert (gate.name, gate.verdict) == ("max_latency_ratio", "FAIL")
    assert "demo.float32.tflite is missing" in gate.message


def test_the_ratio_of_medians_covers_the_true_one() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(400):
        a, b = (rng.lognormal(middle, 0.3, 50) for middle in (0.5, 1.0))
        value = ratio(a.tolist(), b.tolist())
        assert value.low <= value.value <= value.high
        covered.append(value.low <= np.exp(-0.5) <= value.high)
    # 95 % or more; 400 draws have a standard error of a point.
    assert np.mean(covered) > 0.93


@pytest.mark.parametrize("count", [1, 2, 5, 7, 8, 9, 20, 51, 200])
def test_a_median_lies_between_two_order_statistics(count: int) -> None:
    """Against scipy's binomial distribution and numpy's median."""
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(count).permutation(count) + 1.0
    error = (1 - 0.975) / 2
    rank = next(r for r in range(count + 1) if stats.binom.cdf(r, count, 0.5) > error)
    low, high = float(max(rank, 1)), count + 1.0 - max(rank, 1)
    assert ratio(values.tolist(), [1.0]) == Estimate(float(np.median(values)), low, high)
    found = ratio([1.0], values.tolist())
    assert found == Estimate(1 / float(np.median(values)), 1 / high, 1 / low)


def test_a_size_is_judged_as_it_is() -> None:
    for limit, verdict in ((1000, "PASS"), (999, "FAIL")):
        (_, gate) = judge(found(BuildGates(max_bytes=limit)), None)
        assert (gate.name, gate.verdict, gate.limit) == ("max_bytes", verdict, limit)
        assert gate.value == Estimate(1000, 1000, 1000)
        assert gate.message == f"1000 bytes, at most {limit}"


def test_a_latency_gate_tells_its_figures() -> None:
    value = Estimate(0.5, 0.45, 0.55)
    gate = cell_verdict.GATES["max_latency_ratio"](found(BuildGates(), latency_ratio=value), 0.6)
    assert (gate.name, gate.limit) == ("max_latency_ratio", 0.6)
    assert gate.message == "0.50x the time of float32 (0.45 to 0.55), at most 0.60x"
    open_gate = cell_verdict.GATES["max_latency_ratio"](
        found(BuildGates(), latency_ratio=value), 0.5
    )
    assert open_gate.message.startswith(
        "0.50x the time of float32 (0.45 to 0.55), at most 0.50x; the"
    )
    missing = cell_verdict.GATES["max_latency_ratio"](found(BuildGates()), 0.6)
    assert (missing.verdict, missing.limit) == ("FAIL", 0.6)


@pytest.mark.parametrize(
    ("limit", "verdict"), [(0.55, "PASS"), (0.45, "INCONCLUSIVE"), (0.4499, "FAIL")]
)
def test_a_limit_that_is_a_bound_of_the_ratio(limit: float, verdict: str) -> None:
    assert drift_gates.at_most(Estimate(0.5, 0.45, 0.55), limit) == verdict


def test_sets_of_labels_have_no_drop(drift: Drift) -> None:
    several = replace(drift, agreement_by="labels")
    with pytest.raises(UsageError, match=r"demo\.float32\.tflite: .* use min_agreement"):
        judge(found(BuildGates(max_drop=0.1), several), None)


def test_a_device_without_operators_says_that_it_fits() -> None:
    gate = cell_verdict.GATES["device"](found(BuildGates()), "pi4")
    assert (gate.name, gate.verdict, gate.message) == ("device", "PASS", "fits pi4")


def test_a_device_says_what_does_not_fit() -> None:
    findings = {
        "operators": Finding("ok", "30 of 30 will map"),
        "ends": Finding("problem", "input is float32", "x"),
    }
    gate = cell_verdict.GATES["device"](found(BuildGates(), findings=findings), "coral")
    said = "doesn't fit coral: ends: input is float32"
    assert (gate.name, gate.verdict, gate.message) == ("device", "FAIL", said)
    findings["size"] = Finding("problem", "too large", "x")
    gate = cell_verdict.GATES["device"](found(BuildGates(), findings=findings), "coral")
    assert gate.message == f"{said}; size: too large"
    del findings["size"]
    del findings["ends"]
    gate = cell_verdict.GATES["device"](found(BuildGates(), findings=findings), "coral")
    assert (gate.verdict, gate.message) == ("PASS", "fits coral: 30 of 30 will map")


@pytest.mark.parametrize(
    ("accepted", "verdict", "said"),
    [
        (Accepted("sha256:00", 1000, -0.5, 1.0), "PASS", "the accepted artefact"),
        (Accepted("sha256:11", 1000, 0.01, 0.97), "PASS", "not significantly worse"),
        (Accepted("sha256:11", 1000), "PASS", "not significantly worse"),
        (Accepted("sha256:11", 1000, 0.0, 0.97), "FAIL", "accepted 0.0 points"),
        (Accepted("sha256:11", 1000, 0.01, 0.99), "FAIL", "accepted 99.0 %"),
    ],
)
def test_a_baseline_is_missed_when_it_is_worse_beyond_the_interval(
    drift: Drift, accepted: Accepted, verdict: str, said: str
) -> None:
    *_, gate = judge(found(BuildGates(max_drop=0.03), drift), accepted)
    assert (gate.name, gate.verdict) == ("baseline", verdict)
    assert said in gate.message


def test_a_bound_that_is_the_accepted_figure_is_not_worse(drift: Drift) -> None:
    assert drift.top1
    same = Accepted("sha256:11", 1000, drift.top1.drop.low, drift.agreement.high)
    assert cell_verdict.baseline(found(BuildGates(), drift), same).verdict == "PASS"
    gate = cell_verdict.baseline(
        found(BuildGates(), drift), Accepted("sha256:11", 1000, -0.01, 0.99)
    )
    assert gate.message == (
        "worse than the accepted artefact: top-1 drop 1.5 points (0.6 to 2.6), accepted -1.0 "
        "points; agreement 97.0 % (95.7 to 97.9), accepted 99.0 %"
    )


def test_reports_tell_what_was_accepted_and_whether_it_is_another() -> None:
    for digest, changed in (("sha256:00", False), ("sha256:11", True)):
        told = cell_verdict.compared(found(BuildGates()), Accepted(digest, 7, 0.01, 0.97))
        assert told == Baseline(digest, 7, changed, 0.01, 0.97)


def test_gates_tell_their_limit_and_their_figure(drift: Drift) -> None:
    conversion, drop, agreement = judge(
        found(BuildGates(max_drop=0.03, min_agreement=0.95), drift), None
    )
    assert conversion.message == "passed the converter's own check on 20 images"
    assert drift.top1
    assert (drop.limit, drop.value) == (0.03, drift.top1.drop)
    assert agreement.limit == 0.95 and agreement.message.endswith("at least 95.0 %")
    assert agreement.value and agreement.value.value == 0.97


def test_where_no_number_of_images_decides_the_gate_says_so() -> None:
    gate = drift_gates.max_drop(0.01, Pairs(480, 10, 5, 5))
    said = accuracy_gate(replace(gate, images_needed=None), 500).message
    assert "; no number of images would decide" in said


def test_a_lock_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    lock = Lock({"b.int8.tflite": Accepted("sha256:1", 5), "a.c": Accepted("x", 6, -1e-05, 0.25)})
    place = baseline.lock_path(tmp_path / "kedge.toml")
    assert place.name == "kedge.lock.toml"
    assert baseline.read(place) == Lock()
    baseline.write(place, lock)
    assert baseline.read(place) == lock
    place.write_text(place.read_text().replace("bytes", "size"))
    with pytest.raises(ContractError, match="unknown key 'size'"):
        baseline.read(place)


def test_only_what_holds_its_own_gates_is_accepted(tmp_path: Path, artefacts: Path) -> None:
    artefact = artefacts / "tiny.tflite"
    report = build_reports.report(build_reports.write_desk(tmp_path, artefact), artefact)
    worse = cell_verdict.failed(["worse"])
    cells = list(report.cells)
    cells[0] = replace(cells[0], gates=(replace(worse, name="baseline"),), verdict="FAIL")
    before = Lock({"m.int8.tflite": Accepted("old", 1), "gone.int8.tflite": Accepted("old", 1)})
    after = baseline.updated(before, _with(report, cells))
    # The failed one keeps what was accepted; what isn't built any more is forgotten.
    assert sorted(after.cell) == ["m.float32.tflite", "m.int8.onnx", "m.int8.tflite"]
    assert after.cell["m.int8.tflite"].digest == "old"
    assert after.cell["m.float32.tflite"].drop is not None
    assert after.cell["m.int8.onnx"].drop is None


def _with(report: BuildReport, cells: list[CellReport]) -> BuildReport:
    return replace(report, cells=tuple(cells))
