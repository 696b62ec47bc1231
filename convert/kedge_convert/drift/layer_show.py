"""Show layers as a table of 80 columns and as a chart."""

from collections.abc import Iterator
from html import escape

from kedge_convert.drift.layers import LayerDrift, Localisation
from kedge_runtime.drift.report import percent
from kedge_runtime.errors import counted
from kedge_runtime.output import page
from kedge_runtime.printable import printable

ROW, BARS, LABELS = 16, 420, 260  # pixels
TOP = 40
FULL = 60.0  # dB at the right end; above it a layer has no fault
WORST = 3
COLOURS = {"own": "#8fb3d9", "worst": "#c8442f", "total": "#333333", "grid": "#dddddd"}


def svg(localisation: Localisation) -> str:
    """Return an SVG document: a bar for each layer's own SQNR, a line for all drift up to it."""
    layers = sorted(localisation.layers, key=lambda layer: layer.position)
    worst = {layer.position for layer in localisation.layers[:WORST]}
    height = TOP + ROW * len(layers) + ROW
    parts = [
        *_head(localisation, height),
        *(_grid(decibels, height) for decibels in range(0, int(FULL) + 1, 10)),
        *(_bar(row, layer, layer.position in worst) for row, layer in enumerate(layers)),
        _line(layers),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _head(localisation: Localisation, height: int) -> list[str]:
    width = LABELS + BARS + 40
    images = counted(localisation.images, "image")
    title = f"{printable(localisation.artefact)}: SQNR by layer in dB, {images}"
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="8" y="14" font-size="13">{escape(title)}</text>',
        '<text x="8" y="28">bar: noise that the layer adds; line: all noise up to it</text>',
    ]


def _grid(decibels: int, height: int) -> str:
    x = _x(decibels)
    return (
        f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{height - ROW}" stroke="{COLOURS["grid"]}"/>'
        f'<text x="{x}" y="{height - 4}" text-anchor="middle">{decibels}</text>'
    )


def _bar(row: int, layer: LayerDrift, worst: bool) -> str:
    y, x = TOP + row * ROW, _x(layer.own_sqnr)
    colour = COLOURS["worst" if worst else "own"]
    name = printable(layer.layer)
    tip = escape(f"{name}: {layer.own_sqnr:.1f} dB; {layer.advice}")
    return (
        f'<g><title>{tip}</title><rect x="{LABELS}" y="{y + 2}" width="{x - LABELS:.1f}" '
        f'height="{ROW - 4}" fill="{colour}"/>'
        f'<text x="{LABELS - 6}" y="{y + ROW - 4}" text-anchor="end">{escape(name)}</text>'
        "</g>"
    )


def _line(layers: list[LayerDrift]) -> str:
    points = " ".join(
        f"{_x(layer.sqnr)},{TOP + row * ROW + ROW // 2}" for row, layer in enumerate(layers)
    )
    return f'<polyline points="{points}" fill="none" stroke="{COLOURS["total"]}"/>'


def _x(decibels: float) -> float:
    return round(LABELS + BARS * min(max(decibels, 0.0), FULL) / FULL, 1)


ROWS = 10
NAME = 30  # columns
UNMATCHED = 3


def table(localisation: Localisation, rows: int = ROWS) -> str:
    """Return the layers that add most noise, and what to do about them."""
    return page(_lines(localisation, rows))


def _lines(localisation: Localisation, rows: int) -> Iterator[str]:
    count = len(localisation.layers)
    yield f"{localisation.artefact}: the worst {min(rows, count)} of {count} layers"
    yield f"  {'SQNR in dB':<{NAME}}{'own':>7}{'steps':>7}{'all':>7}{'cosine':>9}{'clipped':>9}"
    for layer in localisation.layers[:rows]:
        yield _row(layer)
        if layer.advice:
            yield f"    {layer.advice}"
    images = counted(localisation.images, "image")
    yield f"  own: noise that the layer adds, on {images}; steps: noise of"
    yield "  rounding to the tensor's steps alone; all: noise up to and with this layer"
    if localisation.unmatched:
        # The last of a fused name's parts is the operator's own.
        names = [name.split(";")[-1] for name in localisation.unmatched[:UNMATCHED]]
        tensors = counted(len(localisation.unmatched), "tensor")
        yield f"  {tensors} without a layer: {', '.join(names)}"


def _row(layer: LayerDrift) -> str:
    shown = printable(layer.layer)
    name = shown if len(shown) < NAME else "..." + shown[4 - NAME :]
    steps = f"{layer.floor:7.1f}" if layer.quantised else f"{'float':>7}"
    return (
        f"  {name:<{NAME}}{layer.own_sqnr:7.1f}{steps}{layer.sqnr:7.1f}"
        f"{layer.cosine:9.4f}{percent(layer.clipped):>9}"
    )
