"""What `kedge inspect` says as plain data: the object that docs/inspect.md describes."""

from dataclasses import asdict
from typing import Any

from kedge_convert.edge.fit import Fit
from kedge_runtime.inspect.network import Value
from kedge_runtime.inspect.report import Report
from kedge_runtime.records import encode


def plain(report: Report) -> dict[str, Any]:
    """Return everything but the device."""
    network, summary = report.network, report.summary
    ends = {"inputs": network.inputs, "outputs": network.outputs}
    return {
        "artefact": str(report.path),
        "format": network.form,
        "precision": report.precision,
        "contract": None if report.contract is None else encode(report.contract),
        **{end: [_tensor(network.values[i]) for i in places] for end, places in ends.items()},
        "operators": [asdict(row) for row in summary.operators],
        "quantisation": [asdict(row) for row in summary.quantisation],
        "bytes": report.sizes,
        "arena_bytes": summary.arena,
        "tensors": [_tensor(value) for value in network.values],
    }


def _tensor(value: Value) -> dict[str, Any]:
    return {
        "name": value.name,
        "shape": value.shape,
        "dtype": value.dtype,
        "constant": value.constant,
        "scales": None if value.scales is None else asdict(value.scales),
    }


def plain_fit(verdict: Fit) -> dict[str, Any]:
    """Return the device's part."""
    return {
        "name": verdict.device.name,
        "fits": verdict.fits,
        "findings": [{"name": name, **asdict(each)} for name, each in verdict.findings.items()],
        "forecast": [asdict(fate) for fate in verdict.forecast],
        "compilation": None if verdict.compilation is None else asdict(verdict.compilation),
    }
