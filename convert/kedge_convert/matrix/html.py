"""Write `report.html`: one file for a browser without network."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from kedge_convert.drift.layer_show import svg
from kedge_convert.matrix import plots, tables
from kedge_convert.matrix.record import BuildReport, CellReport
from kedge_runtime.drift import report as text
from kedge_runtime.drift.report import Flip
from kedge_runtime.errors import ImageError, counted
from kedge_runtime.image.decode import read_image
from kedge_runtime.printable import printable

SIDE = 128  # pixels of the longer side: sharp at 96 on most screens
QUALITY = 70


# Several artefacts flip on the same images, so each is scaled once.
@lru_cache(maxsize=1024)
def thumbnail(path: Path) -> str:
    """Return an image as a data URI, or "" when it can't be read."""
    try:
        pixels = read_image(path)
    except ImageError:
        return ""
    height, width = pixels.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


TEMPLATE = "report.html.jinja"
FLIPS = 12  # of an artefact; report.json lists more


def render(report: BuildReport) -> str:
    """Return the page."""
    cells = {cell.name: _drawings(cell) for cell in report.cells}
    return _template().render(
        report=report,
        words=tables,
        text=text,
        counted=counted,
        cells=cells,
        models=_models(report),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("kedge_convert.matrix", "."),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)


def _shown(value: Any) -> Any:
    """Escape control characters in a value: names come from files."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return printable(value) if is_text else value


def _models(report: BuildReport) -> Iterator[tuple[str, list[CellReport], list[Markup]]]:
    """Yield each model with its cells and its plots."""
    for name, group in groupby(report.cells, key=lambda cell: cell.model):
        cells = list(group)
        yield name, cells, _plots(cells)


def _plots(cells: list[CellReport]) -> list[Markup]:
    drifts = [cell.drift for cell in cells if cell.drift]
    if not drifts:
        return []
    what = "accuracy" if drifts[0].top1 else "agreement"
    return [
        plots.pareto(cells, plots.size, "size, MB", what),
        plots.pareto(cells, plots.latency, "time per image, ms", what),
    ]


@dataclass(frozen=True)
class CellDrawings:
    """Hold the plots and thumbnails of one artefact, None for those that it lacks."""

    reliability: Markup | None
    waterfall: Markup | None
    layers: Markup | None
    flips: list[tuple[Flip, str]]


def _drawings(cell: CellReport) -> CellDrawings:
    drift = cell.drift
    calibration, attribution = (drift and drift.calibration), (drift and drift.attribution)
    return CellDrawings(
        plots.reliability(calibration) if calibration else None,
        plots.waterfall(attribution) if attribution else None,
        Markup(svg(cell.by_layer)) if cell.by_layer else None,
        [_flip(cell, flip) for flip in drift.flips.listed[:FLIPS]] if drift else [],
    )


def _flip(cell: CellReport, flip: Flip) -> tuple[Flip, str]:
    return flip, thumbnail(Path(cell.folder or "", flip.image))
