"""Show a run of `kedge drift` as a page, the one of `kedge build`."""

from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

from kedge_convert.matrix import html
from kedge_convert.matrix.record import BuildReport, CellReport, MachineReport, accuracy_gate
from kedge_runtime import __version__
from kedge_runtime.drift.report import Drift, DriftReport
from kedge_runtime.errors import counted
from kedge_runtime.records import decode


def page(report: DriftReport) -> str:
    """Return the page of a run, with the date of now."""
    # The source of another artefact's answers ends in its digest.
    source = report.reference.source.partition(" sha256:")[0]
    model = Path(source or report.reference.path).name
    names = Counter(Path(drift.artefact.path).name for drift in report.drifts)
    cells = tuple(_cell(report, drift, model, names) for drift in report.drifts)
    build = BuildReport(
        config="",
        out="",
        kedge=__version__,
        machine=decode(MachineReport, report.machine, "machine"),
        verdict=report.verdict,
        cells=cells,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    title = f"kedge drift on {counted(report.images, 'image')} of {report.folder}"
    return html.render(build, title)


def _cell(report: DriftReport, drift: Drift, model: str, names: Counter[str]) -> CellReport:
    artefact = drift.artefact
    name = Path(artefact.path).name
    return CellReport(
        # The page's links need different names.
        name=name if names[name] == 1 else artefact.path,
        model=model,
        target=artefact.target,
        options="",
        verdict=drift.verdict,
        gates=tuple(accuracy_gate(gate, drift.images) for gate in drift.gates),
        notes=(),
        cached=False,
        path=artefact.path,
        digest=artefact.digest,
        bytes=artefact.bytes,
        ratio=artefact.ratio,
        folder=report.folder,
        drift=drift,
    )
