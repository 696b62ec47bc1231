"""A report with everything in it, from real measurements of a tiny artefact: no conversion."""

from dataclasses import replace
from pathlib import Path

import numpy as np

import drift_references
from kedge_convert.drift.layers import LayerDrift, Localisation
from kedge_convert.matrix.record import (
    Baseline,
    BuildReport,
    CellReport,
    GateReport,
    MachineReport,
    verdict_of,
)
from kedge_runtime.checks.hardware import identity
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.drift import gates
from kedge_runtime.drift.comparison import DriftRequest, compare, prepare
from kedge_runtime.drift.gates import Estimate, Verdict
from kedge_runtime.drift.report import Attribution, AttributionStep, Drift
from kedge_runtime.drift.summary import GateLimits
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.records import decode

COUNT = 90
# What a name may hold that is markup to HTML, XML or Markdown.
NASTY = "<script>alert('x')</script> & | `x` \x07"


def write_desk(folder: Path, artefact: Path) -> Path:
    """Write photos, a reference near the artefact, and true classes which that mostly knows."""
    (folder / "photos").mkdir()
    drift_references.write_photos(folder / "photos", COUNT)
    drift_references.write_for(artefact, folder / "photos", folder / "reference.npz", 0.4)
    classifier = Classifier.open(artefact)
    names = [p.relative_to(folder / "photos") for p in (folder / "photos").rglob("*.png")]
    rng = np.random.default_rng(2)
    lines = []
    for name in sorted(names):
        known = classifier(folder / "photos" / name).best.index
        lines.append(f"{name},{known if rng.random() < 0.8 else rng.integers(4)}")
    broken = f"{drift_references.BROKEN},0"
    (folder / "truth.csv").write_text("\n".join(["file,label", *lines, broken]) + "\n")
    return folder


def measured(folder: Path, artefact: Path) -> Drift:
    """Return the artefact's drift on a desk, with an attribution made up to go with it."""
    truth = str(folder / "truth.csv")
    request = DriftRequest((artefact,), folder / "photos", truth, GateLimits(), EngineOptions())
    (drift,) = compare(prepare(request), folder / "reference.npz")
    drop = Estimate(0.03, -0.01, 0.07)
    steps = (
        AttributionStep("preprocessing", "Keras -> the contract's pixels", drop, 0.05, 0.05),
        AttributionStep(
            "quantisation", "float32 -> <b>int8</b>", Estimate(-0.01, -0.03, 0.01), 0.01, 0.02
        ),
    )
    found = Attribution(COUNT, steps, Estimate(0.02, -0.02, 0.06), 0.06)
    return replace(drift, attribution=found)


def layers() -> Localisation:
    """Return five layers, the worst first."""
    found = [
        LayerDrift(
            layer=f"block{i}/conv",
            kind="Conv2D",
            through=(f"block{i}/conv",),
            tensor=f"t{i}",
            position=i,
            evidence="value",
            sqnr=20.0 + i,
            cosine=0.99,
            own_sqnr=25.0 + 5 * i,
            own_cosine=0.999,
            floor=40.0,
            clipped=0.0,
            spread=2.0,
            crest=3.0,
            factor=1.0,
            kernel_scales=8,
            channels=8,
            quantised=True,
            advice="keep it in float" if i == 0 else "",
        )
        for i in range(5)
    ]
    return Localisation("m.int8.tflite", 6, tuple(found), ())


def report(folder: Path, artefact: Path) -> BuildReport:
    """Return a build with a cell of each verdict, and one that gave no file."""
    drift = measured(folder, artefact)
    agreement = drift.agreement
    open_gate = gates.min_agreement(agreement.value, drift.images - drift.flips.count, COUNT)
    cells = (
        _cell("m.float32.tflite", GateReport("conversion", "PASS", "fine"), drift),
        _cell("m.int8.tflite", GateReport("max_bytes", "FAIL", f"too large {NASTY}"), drift),
        _cell(
            "m.int8.onnx",
            GateReport(
                "min_agreement", open_gate.verdict, "open", 0.5, agreement, open_gate.images_needed
            ),
            replace(drift, calibration=None, attribution=None, top1=None, top5=None),
        ),
        _bare(
            "m.float16.onnx",
            "FAIL",
            GateReport("conversion", "FAIL", "the process crashed (SIGSEGV)"),
        ),
    )
    machine = decode(MachineReport, identity(), "machine")
    return BuildReport("kedge.toml", "out", "0", machine, "FAIL", cells)


def _bare(name: str, verdict: Verdict, gate: GateReport) -> CellReport:
    model, precision, form = name.split(".")
    return CellReport(name, model, f"{form}:{precision}", "", verdict, (gate,), (), cached=False)


def _cell(name: str, gate: GateReport, drift: Drift) -> CellReport:
    folder = Path(drift.artefact.path).parent
    return replace(
        _bare(name, verdict_of((gate,)), gate),
        notes=(f"a note {NASTY}",),
        path=f"out/{name}",
        digest="sha256:" + "0" * 64,
        bytes=1000 * len(name),
        ratio=0.26,
        precision="int8",
        method="prepared",
        ranges="",
        float_layers=(),
        folder=str(folder),
        drift=drift,
        by_layer=layers(),
        baseline=Baseline("sha256:" + "1" * 64, 900, changed=True),
    )
