"""`kedge inspect` as a page that people can read, in 100 columns at most."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from textwrap import wrap

from kedge_convert.edge.fit import Fit
from kedge_convert.edge.forecast import Forecast
from kedge_runtime.commands.doctor import WIDEST, lines
from kedge_runtime.contract import Contract, Kind, Output
from kedge_runtime.inspect.network import Value
from kedge_runtime.inspect.report import Report
from kedge_runtime.output import paint
from kedge_runtime.printable import printable

MARGIN = "  "
KEY = 12  # width of the first column
# Of the kinds of outputs that nothing is applied to.
MEANINGS: dict[Kind, str] = {
    "softmax": "probabilities that sum to 1; the softmax is in the file",
    "sigmoid": "a probability per class, each for itself; the sigmoid is in the file",
    "features": "features, numbers that describe the picture; there are no classes",
}
GRANULARITIES = {"channel": "per channel", "tensor": "per tensor", "none": "not quantised"}


def page(report: Report, verdict: Fit | None) -> list[str]:
    """Return the lines: contract, operators, quantisation, size, and the device's findings."""
    sections = {
        "contract": _contract(report),
        "operators": _operators(report),
        "quantisation": _quantisation(report),
        "size": _size(report),
    }
    said = [f"{report.path.name}: {report.network.form}, {report.precision}"]
    for title, rows in sections.items():
        said += ["", paint(title, bold=True), *chain.from_iterable(map(_fitted, rows))]
    return said if verdict is None else [*said, "", *fitting(verdict)]


def _contract(report: Report) -> Iterator[str]:
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


def _operators(report: Report) -> Iterator[str]:
    for row in report.summary.operators:
        yield f"{row.count:>5}  {row.kind:<30} {row.dtype or '-':<10} version {row.version}"


def _quantisation(report: Report) -> Iterator[str]:
    for row in report.summary.quantisation:
        scales = "" if not row.largest else f", scales {row.smallest:.3g} to {row.largest:.3g}"
        what = f"{row.role} of {row.kind}" if row.kind else row.role
        yield f"{row.count:>5}  {what:<30} {row.dtype:<10} {GRANULARITIES[row.granularity]}{scales}"


def _size(report: Report) -> Iterator[str]:
    for part, size in report.sizes.items():
        yield _row(part, f"{size:>12,} bytes")
    yield _row("file", f"{sum(report.sizes.values()):>12,} bytes")
    arena = report.summary.arena
    known = "unknown: not all shapes are in the file" if arena is None else f"{arena:>12,} bytes"
    yield _row("memory", f"{known}{'' if arena is None else ' of activations at once (estimate)'}")


def fitting(verdict: Fit) -> Iterator[str]:
    """Yield the device's part: findings, what isn't mapped, and the verdict."""
    device, width = verdict.device, _width()
    yield paint(f"on {device.name} ({device.title})", bold=True)
    for name, finding in verdict.findings.items():
        yield from (MARGIN + line for line in lines(name, finding, width - len(MARGIN)))
    for row in chain(_fates(verdict.forecast), _rows(verdict)):
        yield from _fitted(row)
    yield ""
    yield "It fits." if verdict.fits else "It doesn't fit: see the problems above."


def _fates(fates: Sequence[Forecast]) -> Iterator[str]:
    """Yield what doesn't map, alike ones together."""
    groups: dict[tuple[str, str, str, str], int] = {}
    for fate in fates:
        if fate.level != "maps":
            key = (fate.level, fate.kind, fate.reason, fate.remedy)
            groups[key] = groups.get(key, 0) + 1
    for (level, kind, reason, remedy), count in groups.items():
        yield f"{level:<9}{count:>4}  {kind}: {reason}" + (f" -> {remedy}" if remedy else "")


def _rows(verdict: Fit) -> Iterator[str]:
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
