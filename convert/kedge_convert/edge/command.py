"""`kedge inspect`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kedge_convert.edge.options import device_options
from kedge_runtime.output import echo, echo_json

if TYPE_CHECKING:
    from kedge_convert.edge.fit import Fit
    from kedge_runtime.inspect.report import Report


@click.command("inspect")
@click.argument("artefact", type=click.Path(path_type=Path))
@device_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(
    artefact: Path,
    device: str | None,
    min_mapped: float,
    max_sram: float | None,
    as_json: bool,
) -> int:
    """Show what is inside ARTEFACT, a .tflite or .onnx file, sealed by kedge or not.

    Contract, operators, quantisation, size and memory; with --device what fits the device, what
    doesn't, why, and what to do. Exit code 1 when something doesn't.
    """
    from kedge_convert.edge import plain, show
    from kedge_runtime.inspect.report import inspect

    report = inspect(artefact)
    verdict = None if device is None else _fit(report, device, min_mapped, max_sram)
    if as_json:
        body = plain.plain(report) | {"device": plain.plain_fit(verdict) if verdict else None}
        answer = {"schema": 1, "command": "inspect", **body}
        echo_json(answer)
    else:
        echo(*show.page(report, verdict))
    return 0 if verdict is None or verdict.fits else 1


def _fit(report: "Report", name: str, mapped: float, sram_kb: float | None) -> "Fit":
    from kedge_convert.edge.fit import Gates, fit
    from kedge_models.devices import device

    return fit(report, device(name), Gates(mapped, sram_kb))
