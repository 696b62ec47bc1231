"""The table of `zoo_matrix.py`: one row a model, and one line for every cell that isn't plain."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kedge_convert.targets import TARGETS

Record = dict[str, Any]

# The largest relative logit error that counts as exact.
EXACT = {"float32": 1e-4, "float16": 1e-2}
# What untrained weights may amplify beyond it.
CAUSES = {
    "float32": "computing in float32 instead of float64",
    "float16": "rounding its kernels to float16",
}
# dB: below this the logits' noise has a third of their own size.
NOISY = 10.0
INTRODUCTION = """\
Each cell: for float32 and float16 the largest logit error as a share of the largest logit (exact
is up to 1e-4 and 1e-2); for the others the share of images with the float original's top-1, and
SQNR in dB. Then size, seconds (export and check) and peak memory in GB. `!` marks what is explained
below the table. "Shared" is what all targets of a model need once: load, ask the original, prepare.
With untrained weights (none) a thousand classes lie near together: SQNR tells more than agreement
there, and agreement isn't judged."""


def write(folder: Path, stem: Path) -> None:
    """Write the tables of all models in `folder` as `<stem>.md` and `<stem>.json`."""
    records = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    records.sort(key=lambda record: (record["parameters"], record["model"]))
    stem.with_suffix(".json").write_text(json.dumps(records, indent=2) + "\n")
    stem.with_suffix(".md").write_text(markdown(records))


def markdown(records: list[Record]) -> str:
    """Return the tables, one for each way to get weights."""
    host = records[0]["machine"]
    lines = ["# The zoo, model by target", "", f"{host['processor']}, {host['cores']} cores.", ""]
    lines += [INTRODUCTION]
    for weights in sorted({record["weights"] for record in records}):
        lines += ["", f"## Weights: {weights}", ""]
        lines += _section([record for record in records if record["weights"] == weights])
    return "\n".join(lines) + "\n"


def _section(records: list[Record]) -> list[str]:
    names = [str(target) for target in TARGETS]
    heads = ["model", "M", "pixels", "images", "shared", *names]
    notes = [f"- {note}" for record in records for note in _notes(record)]
    return [
        f"| {' | '.join(heads)} |",
        f"|{' --- |' * len(heads)}",
        *(_row(record, names) for record in records),
        "",
        *(notes or ["Every cell passed."]),
    ]


def _row(record: Record, names: list[str]) -> str:
    cells = record["cells"]
    shared = [cell["shared"] for cell in cells.values() if "shared" in cell]
    parts = [part for parts in shared[:1] for part in parts.values()]
    first = [
        record["model"],
        f"{record['parameters'] / 1e6:.1f}",
        str(record["size"]),
        f"{record['calibrate']} + {record['check']}",
        _cost(sum(p["seconds"] for p in parts), max((p["peak_gb"] for p in parts), default=0)),
    ]
    return f"| {' | '.join([*first, *(_cell(name, cells.get(name)) for name in names)])} |"


def _cell(target: str, cell: Record | None) -> str:
    if cell is None:
        return ""
    mark = " !" if list(_reasons(target, cell)) else ""
    cost = _cost(cell["seconds"], cell["peak_gb"])
    if "parity" not in cell:
        return f"no file{mark}; {cost}"
    return f"{_figures(target, cell['parity'])}, {cell['bytes'] / 1e6:.1f} MB{mark}; {cost}"


def _figures(target: str, parity: Record) -> str:
    if bound(target) is not None:
        return f"{parity['relative_error']:.1e}"
    return f"{parity['agreement']:.2f}, {parity['sqnr']:.0f} dB"


def _cost(seconds: float, gigabytes: float) -> str:
    return f"{seconds:.0f} s, {gigabytes:.1f} GB"


def _notes(record: Record) -> Iterator[str]:
    """Yield one line for what is to be known of a model or a cell."""
    if not record["prepare"]:
        yield f"{record['model']}: not prepared in this run, integers have stock weights"
    for target, cell in record["cells"].items():
        for reason in (*_reasons(target, cell), *_amplified(target, cell, record)):
            yield f"{record['model']} {target}: {reason}"


def _reasons(target: str, cell: Record) -> Iterator[str]:
    yield from cell["reasons"]
    yield from cell.get("notes", ())
    limit = bound(target)
    if cell["passed"] and limit is not None and not error(cell) <= limit:
        yield f"passed, but its error {error(cell):.1e} is above {limit:g}"
    sqnr = cell.get("parity", {}).get("sqnr", NOISY)
    if cell["passed"] and not sqnr >= NOISY:
        yield f"passed, but its noise is {sqnr:.1f} dB below its logits only"


def _amplified(target: str, cell: Record, record: Record) -> Iterator[str]:
    """Say what Keras itself moves by, where that was measured (zoo_sensitivity.py)."""
    limit, own = bound(target), record.get("keras", {}).get(target.partition(":")[2])
    if own is None or limit is None or ("parity" in cell and error(cell) <= limit):
        return
    cause = CAUSES[target.partition(":")[2]]
    yield f"that is the untrained network: {cause} moves Keras's own logits by {own:.1e}"


def bound(target: str) -> float | None:
    """Return the largest relative logit error that counts as exact; None for integers."""
    return EXACT.get(target.partition(":")[2])


def error(cell: Record) -> float:
    """Return a cell's relative logit error, 0 where there is no file."""
    return float(cell.get("parity", {}).get("relative_error", 0.0))
