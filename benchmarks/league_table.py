"""The league's table and the lines that it must hold, from the cells of `league.py`."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import machine
import paired

RESULTS = Path(__file__).parent / "results"
STOCK = {"tflite": "stock TFLiteConverter", "onnx": "stock onnxruntime"}
MIN_AGREEMENT = 0.97
BUDGET = f"kedge, agreement {MIN_AGREEMENT}"
HIGH = "kedge high"

Cell = dict[str, Any]  # a Cell of league.py, as its JSON line gives it
Key = tuple[str, str, str, int]  # model, way, format, split
Interval = tuple[float, float, float]  # of a mean or a ratio: itself, low, high


@dataclass(frozen=True)
class Row:
    """A model's files of one way and format, over all splits that were made.

    Against the stock files of the same format and splits, with 95 % intervals: `kl_gain` (stock's
    KL over this one's), `kl_more` (this one's KL less stock's, in nats), `gain` (in agreement).
    `drop`: the float model's top-1 less this one's. `size`: the ratio to stock's bytes; `latency`
    to its seconds, where it was timed. `passed`: splits in which `kedge convert` passed.
    """

    model: str
    format: str
    way: str
    splits: int = 0
    images: int = 0
    kl: float | None = None
    kl_gain: Interval | None = None
    kl_more: Interval | None = None
    agreement: float | None = None
    agreements: tuple[float, ...] = ()
    gain: Interval | None = None
    top1: float | None = None
    drop: Interval | None = None
    sqnr: float | None = None
    size: float | None = None
    latency: float | None = None
    minutes: float | None = None
    passed: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A line that the league must hold: `holds` is None where nothing was measured for it."""

    text: str
    holds: bool | None
    figures: str


def read(lines: Path) -> list[tuple[Key, Cell]]:
    """Return the cells of the file; the last one of a model, way, format and split."""
    found: dict[Key, Cell] = {}
    for line in lines.read_text().splitlines() if lines.exists() else ():
        cell = json.loads(line)
        found[cell["model"], cell["way"], cell["format"], cell["split"]] = cell
    return list(found.items())


def rows(cells: Sequence[tuple[Key, Cell]], times: dict[str, dict[str, float]]) -> list[Row]:
    """Return a row for each model, format and way; ways that gave no file say why."""
    made = {key: cell for key, cell in cells if cell["kl"]}
    names = dict.fromkeys((model, form, way) for model, way, form, _ in made)
    found = [_row(made, name, times.get(name[0], {})) for name in names]
    known = {(row.model, row.way) for row in found}
    failed = {
        (cell["model"], cell["way"]): Row(cell["model"], "", cell["way"], note=cell["note"])
        for _, cell in cells
        if not cell["kl"] and (cell["model"], cell["way"]) not in known
    }
    models = list(dict.fromkeys(key[0] for key, _ in cells))
    forms = [*STOCK, ""]
    every = [*found, *failed.values()]
    return sorted(every, key=lambda row: (models.index(row.model), forms.index(row.format)))


def _row(made: dict[Key, Cell], name: tuple[str, str, str], times: dict[str, float]) -> Row:
    model, form, way = name
    ours = _cells(made, name)
    stock = _cells(made, (model, form, STOCK[form]))
    shared = [split for split in ours if split in stock]
    mean = _Mean(list(ours.values()))
    against = _against([ours[each] for each in shared], [stock[each] for each in shared])
    seconds = [times.get(f"{each} {form}") for each in (way, STOCK[form])]
    passed = [cell["passed"] for cell in ours.values()]
    return Row(
        *name,
        splits=len(ours),
        images=len(mean.images) // len(ours),
        kl=float(mean.of("kl").mean()),
        agreement=float(mean.of("agree").mean()),
        agreements=tuple(round(float(np.mean(cell["agree"])), 4) for cell in ours.values()),
        top1=float(mean.of("right").mean()) if mean.of("right").size else None,
        drop=mean.interval(mean.of("float_right") - mean.of("right")),
        sqnr=float(np.mean([cell["sqnr"] for cell in ours.values()])),
        latency=seconds[0] / seconds[1] if seconds[0] and seconds[1] else None,
        minutes=float(np.mean([cell["seconds"] for cell in ours.values()])) / 60,
        passed=None if None in passed else sum(passed),
        note=" / ".join(dict.fromkeys(cell["note"] for cell in ours.values())),
        **against,
    )


def _cells(made: dict[Key, Cell], name: tuple[str, str, str]) -> dict[int, Cell]:
    model, form, way = name
    return {key[3]: cell for key, cell in made.items() if key[:3] == (model, way, form)}


@dataclass(frozen=True)
class _Mean:
    """Cells of one row, image by image."""

    cells: list[Cell]

    @property
    def images(self) -> list[str]:
        return [image for cell in self.cells for image in cell["images"]]

    def of(self, key: str) -> NDArray[np.float64]:
        return np.concatenate([np.array(cell[key], np.float64) for cell in self.cells])

    def interval(self, differences: NDArray[np.float64]) -> Interval | None:
        if not differences.size:
            return None
        return (float(differences.mean()), *paired.interval(differences, self.images))


def _against(ours: list[Cell], stock: list[Cell]) -> dict[str, Any]:
    if not ours:
        return {}
    one, other = _Mean(ours), _Mean(stock)
    return {
        "kl_gain": paired.ratio(other.of("kl"), one.of("kl"), one.images),
        "kl_more": one.interval(one.of("kl") - other.of("kl")),
        "gain": one.interval(one.of("agree") - other.of("agree")),
        "size": sum(cell["bytes"] for cell in ours) / sum(cell["bytes"] for cell in stock),
    }


def lines(found: list[Row]) -> list[Line]:
    """Return what the league must hold."""
    return [
        _never_worse(found),
        _budget(found),
        _times("LeakyReLU", "kedge", 2.5, found),
        _times("LeakyReLU", HIGH, 2.5, found),
        _times("EfficientNet-Lite0", "kedge", 2.0, found),
    ]


def _never_worse(found: list[Row]) -> Line:
    ours = [row for row in found if row.way.startswith("kedge") and row.kl_more]
    worse = [row for row in ours if row.kl_more and row.kl_more[1] > 0]
    names = ", ".join(f"{row.model} {row.format} ({row.way})" for row in worse)
    figures = f"worse in {len(worse)} of {len(ours)} rows{': ' if worse else ''}{names}"
    return Line(
        "by KL never worse than stock, beyond the noise", not worse if ours else None, figures
    )


def _budget(found: list[Row]) -> Line:
    ours = [row for row in found if row.way == BUDGET and row.kl is not None]
    splits, passed = sum(row.splits for row in ours), sum(row.passed or 0 for row in ours)
    others = [each for row in ours for each in row.agreements]
    held = sum(each >= MIN_AGREEMENT for each in others)
    figures = f"exit code 0 in {passed} of {splits} splits; on other images {held} of {splits}"
    holds = passed == splits and held >= 0.9 * splits if ours else None
    text = f"--min-agreement {MIN_AGREEMENT} holds on the validation images, and in 9 of 10 splits"
    return Line(f"{text} on others", holds, figures)


def _times(model: str, way: str, least: float, found: list[Row]) -> Line:
    ours = [row for row in found if (row.model, row.way) == (model, way) and row.kl_gain]
    figures = ", ".join(f"{row.format} {_gain(row)}" for row in ours)
    holds = all(row.kl_gain and row.kl_gain[0] >= least for row in ours) if ours else None
    return Line(
        f"{model}: KL of {way} at least {least:g} times better than stock's", holds, figures
    )


COLUMNS: dict[str, Callable[[Row], str]] = {
    "way": lambda row: row.way,
    "KL": lambda row: _number(row.kl, ".4f"),
    "stock's KL / KL": lambda row: _gain(row),
    "agreement": lambda row: _number(row.agreement, ".3f"),
    "gain, points": lambda row: _points(row.gain),
    "top-1": lambda row: _number(row.top1, ".3f"),
    "drop, points": lambda row: _points(row.drop),
    "SQNR dB": lambda row: _number(row.sqnr, ".1f"),
    "size": lambda row: _number(row.size, ".3f"),
    "latency": lambda row: _number(row.latency, ".2f"),
    "min": lambda row: _number(row.minutes, ".1f"),
    "splits": lambda row: str(row.splits or ""),
    "note": lambda row: row.note,
}


def _gain(row: Row) -> str:
    return "" if row.kl_gain is None else "{:.2f} ({:.2f} to {:.2f})".format(*row.kl_gain)


def _points(value: Interval | None) -> str:
    return "" if value is None else "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * v for v in value))


def _number(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)


def summary(found: list[Row]) -> list[str]:
    """Return a table with a line for each model and format: stock, the best peer, and kedge."""
    lines = [
        "| model | format | stock | best of the peers | kedge | stock's KL / kedge's "
        "| kedge high | stock's KL / high's |"
    ]
    lines.append("| --- | --- | --: | --: | --: | --: | --: | --: |")
    for model, form in dict.fromkeys((row.model, row.format) for row in found if row.format):
        these = [row for row in found if (row.model, row.format) == (model, form)]
        by_way = {row.way: row for row in these}
        peers = [row for row in these if not row.way.startswith(("kedge", "stock"))]
        best = min(peers, key=lambda row: row.kl or 0, default=None)
        named = f"{best.way}: {_short(best)}" if best else ""
        cells = [model, form, _short(by_way.get(STOCK[form])), named]
        for own in (by_way.get("kedge"), by_way.get(HIGH)):
            cells += [_short(own), _gain(own) if own else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _short(row: Row | None) -> str:
    """Return a row's KL and agreement."""
    if row is None or row.kl is None or row.agreement is None:
        return ""
    return f"{row.kl:.4f}, {100 * row.agreement:.1f} %"


HEAD = (
    "Every figure is from test images: neither calibration nor validation images of their split. "
    "In brackets: paired 95 % intervals over images. Gain is the agreement with the float model "
    "less that of the stock file of the same format, drop the float model's top-1 less the row's; "
    "size and latency (one thread) are ratios to the stock file. The minutes of kedge's rows are "
    "those of the whole command for both formats, the others' only of the conversion. They were "
    "measured on a machine that did other work, too."
)


def markdown(found: list[Row], held: Iterable[Line]) -> str:
    """Return the page: what must hold, then a table for each model and format."""
    host = machine.identity()
    text = ["# The league", "", f"{host['processor']}, {host['cores']} cores. {HEAD}", ""]
    text += ["| must hold | holds | figures |", "| --- | --- | --- |"]
    words = {None: "not measured", True: "yes", False: "NO"}
    text += [f"| {line.text} | {words[line.holds]} | {line.figures} |" for line in held]
    text += ["", "KL in nats, and the agreement with the float model:", "", *summary(found)]
    for title in dict.fromkeys((row.model, row.format) for row in found):
        text += ["", f"## {' '.join(title).strip()}", "", f"| {' | '.join(COLUMNS)} |"]
        text += [f"|{' --- |' * len(COLUMNS)}"]
        these = (row for row in found if (row.model, row.format) == title)
        text += [f"| {' | '.join(cell(row) for cell in COLUMNS.values())} |" for row in these]
    return "\n".join(text) + "\n"


def write(cells: Path) -> str:
    """Write the results of a file of cells, and return the page."""
    timed = cells.parent / "latency.json"
    times = json.loads(timed.read_text()) if timed.exists() else {}
    found = rows(read(cells), times)
    held = lines(found)
    report = {
        "machine": machine.identity(),
        "lines": [asdict(line) for line in held],
        "rows": [asdict(row) for row in found],
    }
    name = f"league-{machine.slug()}"
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    text = markdown(found, held)
    (RESULTS / f"{name}.md").write_text(text)
    return text
