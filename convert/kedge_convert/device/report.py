"""Report how a file fits a device: the rows of `inspect` and `convert`, and their JSON."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from textwrap import wrap
from typing import Any

from kedge_convert.device.fit import DeviceFit
from kedge_convert.device.forecast import CompilerForecast
from kedge_runtime.commands.findings import WIDEST, lines
from kedge_runtime.output import paint
from kedge_runtime.printable import printable

MARGIN = "  "
KEY = 12  # width of the first column


def plain_fit(verdict: DeviceFit) -> dict[str, Any]:
    """Return the documented object (docs/json.md)."""
    return {
        "name": verdict.device.name,
        "fits": verdict.fits,
        "findings": [{"name": name, **asdict(each)} for name, each in verdict.findings.items()],
        "forecast": [asdict(each) for each in verdict.forecast],
        "compilation": None if verdict.compilation is None else asdict(verdict.compilation),
    }


def fit_rows(verdict: DeviceFit) -> Iterator[str]:
    """Yield findings, unmapped operators, and the verdict."""
    device, room = verdict.device, width() - len(MARGIN)
    yield paint(f"on {device.name} ({device.title})", bold=True)
    for name, finding in verdict.findings.items():
        yield from (MARGIN + line for line in lines(name, finding, room))
    for row in chain(_unmapped(verdict.forecast), _compiled(verdict)):
        yield from folded(row)
    yield ""
    yield "It fits." if verdict.fits else "It doesn't fit: see the problems above."


def _unmapped(forecast: Sequence[CompilerForecast]) -> Iterator[str]:
    """Yield the operators that don't map, in groups of the same reason."""
    groups: dict[tuple[str, str, str, str], int] = {}
    for each in forecast:
        if each.level != "maps":
            key = (each.level, each.kind, each.reason, each.remedy)
            groups[key] = groups.get(key, 0) + 1
    for (level, kind, reason, remedy), count in groups.items():
        yield f"{level:<9}{count:>4}  {kind}: {reason}" + (f" -> {remedy}" if remedy else "")


def _compiled(verdict: DeviceFit) -> Iterator[str]:
    compilation = verdict.compilation
    for row in compilation.rows if compilation is not None else ():
        if row.count:
            yield f"{row.count:>5}  {row.kind:<30} {row.status}"


def width() -> int:
    """Return the width of the page in columns."""
    return min(shutil.get_terminal_size().columns, WIDEST)


def folded(row: str) -> list[str]:
    """Return a row behind the margin, folded to the page's width."""
    return wrap(
        MARGIN + printable(row),
        width(),
        subsequent_indent=" " * (len(MARGIN) + KEY),
        break_long_words=False,
        break_on_hyphens=False,
    )
