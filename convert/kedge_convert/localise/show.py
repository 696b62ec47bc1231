"""The layers as a person reads them, worst first, in 80 columns."""

from collections.abc import Iterator

from kedge_convert.localise.drift import LayerDrift, Localisation
from kedge_runtime.output import page
from kedge_runtime.printable import printable

ROWS = 10
NAME = 30  # columns
UNMATCHED = 3


def table(found: Localisation, rows: int = ROWS) -> str:
    """Return the layers that add most noise, and what to do about them."""
    return page(_lines(found, rows))


def _lines(found: Localisation, rows: int) -> Iterator[str]:
    count = len(found.layers)
    yield f"{found.artefact}: the worst {min(rows, count)} of {count} layers"
    yield f"  {'SQNR in dB':<{NAME}}{'own':>7}{'steps':>7}{'all':>7}{'cosine':>9}{'clipped':>9}"
    for layer in found.layers[:rows]:
        yield _row(layer)
        if layer.advice:
            yield f"    {layer.advice}"
    yield f"  own: noise the layer adds, on {found.images} pictures; steps: what rounding to its"
    yield "  tensor's steps alone leaves; all: with what came before it"
    if found.unmatched:
        # The last of a fused name's parts is the operator's own.
        names = [name.split(";")[-1] for name in found.unmatched[:UNMATCHED]]
        yield f"  {len(found.unmatched)} tensors are no layer's output: {', '.join(names)}"


def _row(layer: LayerDrift) -> str:
    shown = printable(layer.layer)
    name = shown if len(shown) < NAME else "..." + shown[4 - NAME :]
    steps = f"{layer.floor:7.1f}" if layer.quantised else f"{'float':>7}"
    return (
        f"  {name:<{NAME}}{layer.own_sqnr:7.1f}{steps}{layer.sqnr:7.1f}"
        f"{layer.cosine:9.4f}{layer.clipped:9.2%}"
    )
