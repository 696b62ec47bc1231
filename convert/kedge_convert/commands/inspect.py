"""`kedge inspect`: its page, 100 columns wide, and its JSON."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from textwrap import wrap
from typing import Any

import click

from kedge_convert.commands.options import device_options
from kedge_convert.device.fit import DeviceFit
from kedge_convert.device.forecast import CompilerForecast
from kedge_runtime.artefact.contract import Contract, Kind, Output
from kedge_runtime.commands.doctor import WIDEST, lines
from kedge_runtime.modelfile.network import Value
from kedge_runtime.modelfile.report import FileReport
from kedge_runtime.output import echo, echo_json, paint
from kedge_runtime.printable import printable
from kedge_runtime.records import encode


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
    from kedge_runtime.modelfile.report import inspect

    report = inspect(artefact)
    verdict = None if device is None else _fit(report, device, min_mapped, max_sram)
    if as_json:
        body = plain(report) | {"device": plain_fit(verdict) if verdict else None}
        answer = {"schema": 1, "command": "inspect", **body}
        echo_json(answer)
    else:
        echo(*page(report, verdict))
    return 0 if verdict is None or verdict.fits else 1


def _fit(report: "FileReport", name: str, mapped: float, sram_kb: float | None) -> "DeviceFit":
    from kedge_convert.device.fit import DeviceGates, fit
    from kedge_models.devices import device

    return fit(report, device(name), DeviceGates(mapped, sram_kb))


def plain(report: FileReport) -> dict[str, Any]:
    """Return everything but the device."""
    network, summary = report.network, report.summary
    ends = {"inputs": network.inputs, "outputs": network.outputs}
    return {
        "artefact": str(report.path),
        "format": network.format,
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


def plain_fit(verdict: DeviceFit) -> dict[str, Any]:
    """Return the device's part."""
    return {
        "name": verdict.device.name,
        "fits": verdict.fits,
        "findings": [{"name": name, **asdict(each)} for name, each in verdict.findings.items()],
        "forecast": [asdict(fate) for fate in verdict.forecast],
        "compilation": None if verdict.compilation is None else asdict(verdict.compilation),
    }


MARGIN = "  "
KEY = 12  # width of the first column
# Of the kinds of outputs that nothing is applied to.
MEANINGS: dict[Kind, str] = {
    "softmax": "probabilities that sum to 1; the softmax is in the file",
    "sigmoid": "a probability per class, each for itself; the sigmoid is in the file",
    "features": "features, numbers that describe the picture; there are no classes",
}
GRANULARITIES = {"channel": "per channel", "tensor": "per tensor", "none": "not quantised"}


def page(report: FileReport, verdict: DeviceFit | None) -> list[str]:
    """Return the lines: contract, operators, quantisation, size, and the device's findings."""
    sections = {
        "contract": _contract(report),
        "operators": _operators(report),
        "quantisation": _quantisation(report),
        "size": _size(report),
    }
    said = [f"{report.path.name}: {report.network.format}, {report.precision}"]
    for title, rows in sections.items():
        said += ["", paint(title, bold=True), *chain.from_iterable(map(_fitted, rows))]
    return said if verdict is None else [*said, "", *fitting(verdict)]


def _contract(report: FileReport) -> Iterator[str]:
    contract = report.contract
    for end, places in {"input": report.network.inputs, "output": report.network.outputs}.items():
        yield _row(end, "; ".join(_value(report.network.values[i]) for i in places))
    if contract is None:
        yield "none: kedge didn't make it (classify and bench take --contract)"
    else:
        yield from _promises(contract)


def _promises(contract: Contract) -> Iterator[str]:
    geometry, normalisation = contract.input.geometry, contract.input.normalisation
    made = contract.provenance
    size = f"{geometry.height}x{geometry.width} {normalisation.colour}"
    yield _row("pictures", f"{size}, {geometry.resize}, {geometry.fit}{_cropped(contract)}")
    yield _row("pixels", f"(byte / {normalisation.divisor:g} - mean) / std: {_norm(contract)}")
    yield _row("output is", _meaning(contract.output))
    yield _row("labels", f"{len(contract.labels)}: {_few([each.name for each in contract.labels])}")
    yield _row("made from", f"{made.source}, {made.weights_digest[:19]}..., {made.method} weights")
    if made.device:
        yield _row("made for", made.device)
    if made.calibration_count:
        digest = made.calibration_digest[:19]
        yield _row("calibration", f"{made.calibration_count} pictures, {digest}...")
    yield _row("made with", ", ".join(f"{name} {number}" for name, number in made.tools.items()))


def _meaning(output: Output) -> str:
    """Say what the output's numbers are, and what is still to be done with them."""
    if output.kind != "logits":
        return MEANINGS[output.kind]
    divided = f", to be divided by {output.temperature:g}" if output.temperature != 1 else ""
    return (
        f"logits, a raw score per class{divided}; the {output.activation} that makes probabilities "
        "of them isn't in the file: kedge computes it when it answers, other programs must, too"
    )


def _cropped(contract: Contract) -> str:
    geometry = contract.input.geometry
    return f" to {geometry.crop_fraction:g}" if geometry.fit == "crop" else ""


def _norm(contract: Contract) -> str:
    normalisation = contract.input.normalisation
    mean, std = (
        ", ".join(f"{v:g}" for v in each) for each in (normalisation.mean, normalisation.std)
    )
    return f"mean {mean}; std {std}"


def _operators(report: FileReport) -> Iterator[str]:
    for row in report.summary.operators:
        yield f"{row.count:>5}  {row.kind:<30} {row.dtype or '-':<10} version {row.version}"


def _quantisation(report: FileReport) -> Iterator[str]:
    for row in report.summary.quantisation:
        scales = "" if not row.largest else f", scales {row.smallest:.3g} to {row.largest:.3g}"
        what = f"{row.role} of {row.kind}" if row.kind else row.role
        yield f"{row.count:>5}  {what:<30} {row.dtype:<10} {GRANULARITIES[row.granularity]}{scales}"


def _size(report: FileReport) -> Iterator[str]:
    for part, size in report.sizes.items():
        yield _row(part, f"{size:>12,} bytes")
    yield _row("file", f"{sum(report.sizes.values()):>12,} bytes")
    arena = report.summary.arena
    known = "unknown: not all shapes are in the file" if arena is None else f"{arena:>12,} bytes"
    yield _row("memory", f"{known}{'' if arena is None else ' of activations at once (estimate)'}")


def fitting(verdict: DeviceFit) -> Iterator[str]:
    """Yield the device's part: findings, what isn't mapped, and the verdict."""
    device, width = verdict.device, _width()
    yield paint(f"on {device.name} ({device.title})", bold=True)
    for name, finding in verdict.findings.items():
        yield from (MARGIN + line for line in lines(name, finding, width - len(MARGIN)))
    for row in chain(_fates(verdict.forecast), _rows(verdict)):
        yield from _fitted(row)
    yield ""
    yield "It fits." if verdict.fits else "It doesn't fit: see the problems above."


def _fates(fates: Sequence[CompilerForecast]) -> Iterator[str]:
    """Yield what doesn't map, alike ones together."""
    groups: dict[tuple[str, str, str, str], int] = {}
    for fate in fates:
        if fate.level != "maps":
            key = (fate.level, fate.kind, fate.reason, fate.remedy)
            groups[key] = groups.get(key, 0) + 1
    for (level, kind, reason, remedy), count in groups.items():
        yield f"{level:<9}{count:>4}  {kind}: {reason}" + (f" -> {remedy}" if remedy else "")


def _rows(verdict: DeviceFit) -> Iterator[str]:
    made = verdict.compilation
    for row in made.rows if made is not None else ():
        if row.count:
            yield f"{row.count:>5}  {row.kind:<30} {row.status}"


def _width() -> int:
    return min(shutil.get_terminal_size().columns, WIDEST)


def _fitted(row: str) -> list[str]:
    """Return a row behind the margin, folded where the terminal ends."""
    return wrap(
        MARGIN + printable(row),
        _width(),
        subsequent_indent=" " * (len(MARGIN) + KEY),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _value(value: Value) -> str:
    shape = "?" if value.shape is None else "x".join("?" if s < 0 else str(s) for s in value.shape)
    scales = value.scales
    if scales is None:
        return f"{value.dtype} {shape}"
    return f"{value.dtype} {shape}, scale {scales.smallest:.6g}, zero point {scales.zero_point}"


def _row(key: str, text: str) -> str:
    return f"{key:<{KEY}}{text}"


def _few(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
