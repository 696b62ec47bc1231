"""`kedge inspect`: its page and its JSON."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import click

from kedge_convert.commands.options import DeviceOptions, device_options
from kedge_convert.device.fit import DeviceFit
from kedge_convert.device.report import KEY, fit_rows, folded, plain_fit
from kedge_runtime.artefact.contract import Contract, Normalisation, Output
from kedge_runtime.artefact.kinds import Kind
from kedge_runtime.commands.options import as_json
from kedge_runtime.errors import counted, grouped
from kedge_runtime.image.pipelines import formula, normalisation_name
from kedge_runtime.modelfile.network import Value
from kedge_runtime.modelfile.report import FileReport
from kedge_runtime.output import echo, echo_json, paint
from kedge_runtime.records import encode


@dataclass(frozen=True)
class InspectOptions:
    """The options of `kedge inspect`."""

    artefact: Path
    device: DeviceOptions
    as_json: bool


@click.command("inspect")
@click.argument("artefact", type=click.Path(path_type=Path))
@device_options
@as_json
def command(**values: Any) -> int:
    """Show what is inside ARTEFACT, a .tflite or .onnx file, sealed by kedge or not.

    The page lists contract, operators, quantisation, size and memory. With --device it also lists
    the problems on that device and their remedies; exit code 1 when there is any.
    """
    from kedge_convert.device.fit import fit
    from kedge_runtime.modelfile.report import inspect

    options = InspectOptions(**values)
    report, device = inspect(options.artefact), options.device.profile()
    verdict = None if device is None else fit(report, device, options.device.gates())
    if options.as_json:
        body = plain(report) | {"device": plain_fit(verdict) if verdict else None}
        echo_json({"schema": 1, "command": "inspect", **body})
    else:
        echo(*page(report, verdict))
    return 0 if verdict is None or verdict.fits else 1


def plain(report: FileReport) -> dict[str, Any]:
    """Return the documented object (docs/json.md) without the device."""
    network, summary = report.network, report.summary
    io = {"inputs": network.inputs, "outputs": network.outputs}
    return {
        "artefact": str(report.path),
        "format": network.format,
        "precision": report.precision,
        "contract": None if report.contract is None else encode(report.contract),
        **{key: [_tensor(network.values[i]) for i in each] for key, each in io.items()},
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


# Output type -> its meaning, where the runtime applies nothing to it.
MEANINGS: dict[Kind, str] = {
    "softmax": "probabilities that sum to 1; the softmax is in the file",
    "sigmoid": "an independent probability per class; the sigmoid is in the file",
    "features": "features, numbers that describe the image; there are no classes",
}
# The number of labels that are listed whole.
LISTED = 8
GRANULARITIES = {"channel": "per channel", "tensor": "per tensor", "none": "not quantised"}


def page(report: FileReport, verdict: DeviceFit | None) -> list[str]:
    """Return the lines: contract, operators, quantisation, size, and the device's findings."""
    sections = {
        "contract": _contract(report),
        "operators": _operators(report),
        "quantisation": _quantisation(report),
        "size": _size(report),
    }
    page = [f"{report.path.name}: {report.network.format}, {report.precision}"]
    for title, rows in sections.items():
        page += ["", paint(title, bold=True), *chain.from_iterable(map(folded, rows))]
    return page if verdict is None else [*page, "", *fit_rows(verdict)]


def _contract(report: FileReport) -> Iterator[str]:
    contract = report.contract
    network = report.network
    for key, tensors in {"input": network.inputs, "output": network.outputs}.items():
        yield _row(key, "; ".join(_value(network.values[i]) for i in tensors))
    if contract is None:
        yield "none: kedge didn't make it (classify and bench take --contract)"
    else:
        yield from _terms(contract)


def _terms(contract: Contract) -> Iterator[str]:
    geometry, normalisation = contract.input.geometry, contract.input.normalisation
    origin = contract.provenance
    size = f"{geometry.height}x{geometry.width} {normalisation.colour}"
    yield _row("images", f"{size}, {geometry.resize}, {geometry.fit}{_cropped(contract)}")
    yield _row("pixels", _pixels(normalisation))
    yield _row("output is", _meaning(contract.output))
    yield _row("labels", f"{len(contract.labels)}: {_few([each.name for each in contract.labels])}")
    weights = f"{origin.weights_digest[:19]}..., {origin.method} weights"
    yield _row("made from", f"{origin.source}, {weights}")
    if origin.copied:
        yield _row("copied channels", ", ".join(origin.copied))
    if origin.device:
        yield _row("made for", origin.device)
    if origin.calibration_count:
        digest = origin.calibration_digest[:19]
        yield _row("calibration", f"{counted(origin.calibration_count, 'image')}, {digest}...")
    yield _row("made with", ", ".join(f"{name} {number}" for name, number in origin.tools.items()))


def _pixels(normalisation: Normalisation) -> str:
    if normalisation_name(normalisation) == "raw":
        return "bytes as they are, 0 to 255"
    return f"{formula(normalisation)}, of a byte x 0..255"


def _meaning(output: Output) -> str:
    """Describe the output's numbers, and the activation that the runtime applies."""
    if output.kind != "logits":
        return MEANINGS[output.kind]
    divided = f", to be divided by {output.temperature:g}" if output.temperature != 1 else ""
    return (
        f"logits, a raw score per class{divided}; the file has no {output.activation}: kedge "
        "applies it to get probabilities, and other programs must do the same"
    )


def _cropped(contract: Contract) -> str:
    geometry = contract.input.geometry
    return f" to {geometry.crop_fraction:g}" if geometry.fit == "crop" else ""


def _operators(report: FileReport) -> Iterator[str]:
    for row in report.summary.operators:
        yield f"{row.count:>5}  {row.kind:<30} {row.dtype:<10} version {row.version}"


def _quantisation(report: FileReport) -> Iterator[str]:
    if all(row.granularity == "none" for row in report.summary.quantisation):
        roles = dict.fromkeys(f"{row.role} {row.dtype}" for row in report.summary.quantisation)
        yield f"none: {', '.join(roles)}"
        return
    for row in report.summary.quantisation:
        scales = "" if not row.largest else f", scales {row.smallest:.3g} to {row.largest:.3g}"
        what = f"{row.role} of {row.kind}" if row.kind else row.role
        yield f"{row.count:>5}  {what:<30} {row.dtype:<10} {GRANULARITIES[row.granularity]}{scales}"


def _size(report: FileReport) -> Iterator[str]:
    for part, size in report.sizes.items():
        yield _row(part, f"{grouped(size):>12} bytes")
    yield _row("file", f"{grouped(sum(report.sizes.values())):>12} bytes")
    arena = report.summary.arena
    if arena is None:
        yield _row("memory", "unknown: not all shapes are in the file")
    else:
        yield _row("memory", f"{grouped(arena):>12} bytes of activations at once (estimate)")


def _value(value: Value) -> str:
    shape = "?" if value.shape is None else "x".join("?" if s < 0 else str(s) for s in value.shape)
    scales = value.scales
    if scales is None:
        return f"{value.dtype} {shape}"
    return f"{value.dtype} {shape}, scale {scales.smallest:.6g}, zero point {scales.zero_point}"


def _row(key: str, text: str) -> str:
    return f"{key:<{KEY}}{text}"


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    if len(listed) <= LISTED:
        return ", ".join(listed)
    return f"{', '.join(listed[:3])}, ... {listed[-1]}"
