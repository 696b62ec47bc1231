"""How figures are written in every report."""

from kedge_convert.matrix.record import BuildReport, CellReport
from kedge_runtime.drift.gates import Estimate, Verdict
from kedge_runtime.drift.report import Side
from kedge_runtime.errors import counted

# Beside each colour a shape and the word: a report is read without colours, too.
SHAPES: dict[Verdict, str] = {"PASS": "✔", "FAIL": "✘", "INCONCLUSIVE": "?"}
NOTHING = "-"


def points(share: float) -> str:
    """Write a difference of shares in percentage points, as `+0.4 pp`."""
    return f"{100 * share:+.1f} pp".replace("-0.0", "0.0").replace("+0.0", "0.0")


def percent(share: float | None) -> str:
    """Write a share, as `98.2 %`."""
    return NOTHING if share is None else f"{100 * share:.1f} %"


def megabytes(count: int | None) -> str:
    """Write a size, as `3.98 MB`; MB is 10^6 bytes."""
    return NOTHING if count is None else f"{count / 1e6:.2f} MB"


def times(ratio: float | None) -> str:
    """Write a ratio, as `0.41x`."""
    return NOTHING if ratio is None else f"{ratio:.2f}x"


def change(value: Estimate) -> str:
    """Write a drop as a change of accuracy with its interval: `-0.4 pp (-1.1 .. +0.3)`."""
    ends = (points(-end).removesuffix(" pp") for end in (value.high, value.low))
    return f"{points(-value.value)} ({' .. '.join(ends)})"


def share(value: Estimate) -> str:
    """Write a share with its interval: `98.2 % (96.6 .. 99.1)`."""
    return f"{percent(value.value)} ({100 * value.low:.1f} .. {100 * value.high:.1f})"


def side(found: Side) -> str:
    """Write one side's answer: the best class and how sure it is, or a set of labels."""
    if found.best is None:
        return str(found.labels)
    return f"{found.best.name}, {percent(found.best.probability)}"


def pictures(count: int) -> str:
    """Write a number of pictures."""
    return "1 picture" if count == 1 else f"{count} pictures"


def counts(report: BuildReport) -> str:
    """Write e.g. `4 artefacts: 3 passed, 1 failed`."""
    total = counted(len(report.cells), "artefact")
    several = {
        "passed": report.count("PASS"),
        "failed": report.count("FAIL"),
        "inconclusive": report.count("INCONCLUSIVE"),
    }
    return f"{total}: {', '.join(f'{n} {what}' for what, n in several.items() if n)}"


def figures(cell: CellReport) -> dict[str, str]:
    """Return a cell's figures by what they are called."""
    drift = cell.drift
    ratio = None if cell.ratio is None else 100 * cell.ratio
    return {
        "top-1": change(drift.top1.drop) if drift and drift.top1 else NOTHING,
        "agreement": share(drift.agreement) if drift else NOTHING,
        "size": megabytes(cell.bytes),
        "of float32": NOTHING if ratio is None else f"{ratio:.0f} %",
        "ms": NOTHING if drift is None else f"{drift.latency.median_ms:.1f}",
    }


def since(cell: CellReport) -> str:
    """Write what has changed against the baseline; there must be one."""
    was, now = cell.baseline, cell.bytes
    if was is None or now is None:
        raise AssertionError("no baseline to compare with")
    return f"{was.digest[:15]}..., {now - was.bytes:+d} bytes"
