"""`report.html`: one file with everything in it, for a browser without network.

The words and the style are in `report.html.jinja`; here is what they are filled with.
"""

from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from kedge_convert.localise import svg
from kedge_convert.reports import plots, words
from kedge_convert.reports.record import Cell, Report
from kedge_convert.reports.thumbnails import thumbnail
from kedge_runtime.drift.report import Flip
from kedge_runtime.printable import printable

TEMPLATE = "report.html.jinja"
FLIPS = 12  # of an artefact; report.json lists more


def render(report: Report) -> str:
    """Return the page."""
    cells = {cell.name: _cell(cell) for cell in report.cells}
    return _template().render(report=report, words=words, cells=cells, models=_models(report))


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("kedge_convert.reports", "."),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)


def _shown(value: Any) -> Any:
    """Return what a page shows of a value: names come from files."""
    named = isinstance(value, str) and not isinstance(value, Markup)
    return printable(value) if named else value


def _models(report: Report) -> Iterator[tuple[str, list[Cell], list[Markup]]]:
    """Yield each model with its cells and its plots; they share the pictures."""
    for name, found in groupby(report.cells, key=lambda cell: cell.model):
        cells = list(found)
        yield name, cells, _plots(cells)


def _plots(cells: list[Cell]) -> list[Markup]:
    drifts = [cell.drift for cell in cells if cell.drift]
    if not drifts:
        return []
    what = "accuracy" if drifts[0].top1 else "agreement"
    return [
        plots.pareto(cells, plots.size, "size, MB", what),
        plots.pareto(cells, plots.latency, "time of a picture, ms", what),
    ]


def _cell(cell: Cell) -> dict[str, Any]:
    """Return the plots and pictures of one artefact, None for what there isn't."""
    drift = cell.drift
    return {
        "reliability": drift and drift.calibration and plots.reliability(drift.calibration),
        "waterfall": drift and drift.attribution and plots.waterfall(drift.attribution),
        "layers": cell.by_layer and Markup(svg(cell.by_layer)),
        "flips": [_flip(cell, flip) for flip in drift.flips.listed[:FLIPS]] if drift else [],
    }


def _flip(cell: Cell, flip: Flip) -> tuple[Flip, str]:
    return flip, thumbnail(Path(cell.images or "", flip.image))
