"""Draw the plots of a report as SVG; the page's style sheet has the colours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from kedge_convert.matrix.record import CellReport
from kedge_runtime.drift.gates import Estimate, Verdict
from kedge_runtime.drift.report import Attribution, Calibration, Calibrations, percent, points
from kedge_runtime.printable import printable

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high`, drawn from pixel `start` to pixel `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return a value's pixel."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, about: int = 4) -> list[float]:
        """Return round values, multiples of 1, 2 or 5 times a power of ten."""
        step = _step((self.high - self.low) / about)
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _step(rough: float) -> float:
    power = 10.0 ** floor(log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def canvas(width: int, height: int, title: str) -> Element:
    """Return a drawing with a title for screen readers."""
    size = f"0 0 {width} {height}"
    root = Element("svg", {"viewBox": size, "role": "img", "aria-label": title, "class": "plot"})
    root.set("style", f"max-width:{width}px")
    SubElement(root, "title").text = title
    return root


def add(root: Element, kind: str, look: str, **places: float | str) -> Element:
    """Add an element with a class of the style sheet; `_` in a name stands for `-`."""
    named = {name.replace("_", "-"): f"{value}" for name, value in places.items()}
    return SubElement(root, kind, {"class": look, **named})


def write(root: Element, text: str, at: Point, look: str = "", anchor: str = "start") -> None:
    """Add a text that begins, is centred (`middle`) or ends at a point."""
    add(root, "text", look, x=at[0], y=at[1], text_anchor=anchor).text = printable(text)


def line(root: Element, through: Sequence[Point], look: str) -> None:
    """Add a line through points."""
    add(root, "polyline", look, points=" ".join(f"{x},{y}" for x, y in through))


def markup(root: Element) -> Markup:
    """Return the drawing for a page."""
    return Markup(tostring(root, "unicode"))  # ElementTree has escaped it


WIDTH, HEIGHT = 340, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 24, 40
LABEL = 12  # pixels between two numbers
ROW = 26


@dataclass(frozen=True)
class PlotPoint:
    """Hold one artefact of a plot: its number in the list, cost and quality (0..1).

    `low`, `high`: the 95 % interval of `quality`, or itself without an interval.
    """

    number: int
    cost: float
    quality: float
    low: float
    high: float
    verdict: Verdict


def quality(cell: CellReport) -> Estimate | None:
    """Return the accuracy, or without ground truth the agreement with its interval."""
    if cell.drift is None:
        return None
    if cell.drift.top1 is None:
        return cell.drift.agreement
    return Estimate(*[cell.drift.top1.artefact] * 3)


def size(cell: CellReport) -> float:
    """Return an artefact's size in 10^6 bytes."""
    return (cell.bytes or 0) / 1e6


def latency(cell: CellReport) -> float:
    """Return an artefact's latency in milliseconds."""
    return cell.drift.latency.median_ms if cell.drift else 0.0


def pareto(
    cells: Sequence[CellReport], cost: Callable[[CellReport], float], unit: str, what: str
) -> Markup:
    """Draw quality against a cost; the line joins the artefacts of the Pareto front."""
    marks = [
        PlotPoint(number, cost(cell), good.value, good.low, good.high, cell.verdict)
        for number, cell in enumerate(cells, 1)
        if (good := quality(cell)) is not None
    ]
    best = front(marks)
    names = ", ".join(f"{mark.number}" for mark in best)
    title = f"{what} against {unit} of {len(marks)} artefacts; Pareto front: {names}"
    root = canvas(WIDTH, HEIGHT, title)
    across, up = _axes(marks)
    _frame(root, across, up, (what, unit))
    line(root, [(across.at(p.cost), up.at(p.quality)) for p in best], "front")
    for mark in marks:
        x = across.at(mark.cost)
        line(root, [(x, up.at(mark.low)), (x, up.at(mark.high))], "interval")
        _mark(root, mark.verdict, x, up.at(mark.quality))
    _number(root, marks, across, up)
    return markup(root)


def front(marks: Sequence[PlotPoint]) -> list[PlotPoint]:
    """Return the Pareto front, by cost: no other mark is better at the same cost or less."""
    best: list[PlotPoint] = []
    for mark in sorted(marks, key=lambda each: (each.cost, -each.quality)):
        if not best or mark.quality > best[-1].quality:
            best.append(mark)
    return best


def _axes(marks: Sequence[PlotPoint]) -> tuple[Axis, Axis]:
    least, most = min(mark.low for mark in marks), max(mark.high for mark in marks)
    spread = max(most - least, 0.01)
    low, high = max(0.0, least - 0.1 * spread), min(1.0, most + 0.1 * spread)
    dearest = max(mark.cost for mark in marks) or 1.0
    across = Axis(0.0, 1.1 * dearest, LEFT, WIDTH - RIGHT)
    return across, Axis(low, high, HEIGHT - BOTTOM, TOP)


def _frame(root: Element, across: Axis, up: Axis, names: tuple[str, str]) -> None:
    for tick in up.ticks():
        y = up.at(tick)
        line(root, [(across.start, y), (across.end, y)], "grid")
        write(root, f"{100 * tick:.4g} %", (across.start - 6, y + 4), "tick", "end")
    for tick in across.ticks():
        write(root, f"{tick:.4g}", (across.at(tick), up.start + 15), "tick", "middle")
    line(root, [(across.start, up.start), (across.end, up.start)], "axis")
    write(root, names[0], (4, 11), "tick")
    write(root, names[1], ((across.start + across.end) / 2, up.start + 31), "tick", "middle")


def _mark(root: Element, verdict: Verdict, x: float, y: float) -> None:
    """Draw a dot for PASS, a cross for FAIL, a triangle for INCONCLUSIVE."""
    paths = {
        "PASS": f"M{x - 5},{y}a5,5 0 1,0 10,0a5,5 0 1,0 -10,0",
        "FAIL": f"M{x - 5},{y - 5}l10,10m0,-10l-10,10",
        "INCONCLUSIVE": f"M{x},{y - 6}l6,11h-12z",
    }
    add(root, "path", f"mark {verdict.lower()}", d=paths[verdict])


def _number(root: Element, marks: Sequence[PlotPoint], across: Axis, up: Axis) -> None:
    """Write the numbers beside the marks, apart from each other."""
    written: list[Point] = []
    for mark in sorted(marks, key=lambda each: -each.quality):
        x, y = across.at(mark.cost) + 8, up.at(mark.quality) + 4
        while any(abs(x - a) < LABEL and abs(y - b) < LABEL for a, b in written):
            y += LABEL
        written.append((x, y))
        write(root, str(mark.number), (x, y), "number")


def reliability(calibrations: Calibrations) -> Markup:
    """Draw the accuracy of both sides by their confidence."""
    sides = {"reference": calibrations.reference, "artefact": calibrations.artefact}
    errors = ", ".join(f"{name} {percent(side.ece)}" for name, side in sides.items())
    root = canvas(WIDTH, HEIGHT, f"reliability diagram; calibration error: {errors}")
    across, up = Axis(0, 1, LEFT, WIDTH - RIGHT), Axis(0, 1, HEIGHT - BOTTOM, TOP)
    _frame(root, across, up, ("right", "confidence"))
    line(root, [(across.at(0), up.at(0)), (across.at(1), up.at(1))], "diagonal")
    for name, side in sides.items():
        bins = _bins(side)
        line(root, [(across.at(c), up.at(a)) for c, a, _ in bins], f"line {name}")
        for confidence, accuracy, weight in bins:
            _dot(root, name, (across.at(confidence), up.at(accuracy)), weight)
    return markup(root)


def _bins(side: Calibration) -> list[tuple[float, float, float]]:
    """Return each bin's confidence, accuracy, and images as a share of the largest bin's."""
    most = max(each.images for each in side.bins)
    return [
        (each.confidence, each.accuracy, each.images / most)
        for each in side.bins
        if each.confidence is not None and each.accuracy is not None
    ]


def _dot(root: Element, name: str, at: Point, weight: float) -> None:
    """Draw a mark whose area grows with the number of images."""
    radius = round(1.5 + 4 * weight**0.5, 1)
    if name == "reference":
        add(root, "circle", "dot reference", cx=at[0], cy=at[1], r=radius)
    else:
        corner = {"x": round(at[0] - radius, 1), "y": round(at[1] - radius, 1)}
        add(root, "rect", "dot artefact", width=2 * radius, height=2 * radius, **corner)


def waterfall(attribution: Attribution) -> Markup:
    """Draw what each step adds to a drift, and the total: losses to the right."""
    if attribution.drop is None:
        what, total = "disagreement with Keras", attribution.disagreement
    else:
        what, total = "drop of top-1", attribution.drop.value
    losses = [step.drop.value if step.drop else step.disagreement for step in attribution.steps]
    starts = [sum(losses[:i]) for i in range(len(losses))] + [0.0]
    names = [*(step.name for step in attribution.steps), "total"]
    bars = list(zip(names, starts, [*losses, total], strict=True))
    summary = ", ".join(f"{name} {points(value)}" for name, _, value in bars)
    root = canvas(WIDTH, ROW * len(bars) + 12, f"{what} by step: {summary}")
    _bars(root, bars)
    return markup(root)


def _bars(root: Element, bars: Sequence[tuple[str, float, float]]) -> None:
    """Draw rows of (name, start, value); positive values are losses."""
    looks = {0: "none", 1: "worse", -1: "better"}
    ends = [end for _, start, value in bars for end in (start, start + value)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    across = Axis(low, high if high > low else low + 0.01, 104, WIDTH - 76)
    zero = across.at(0)
    line(root, [(zero, 4), (zero, ROW * len(bars) + 4)], "axis")
    for row, (name, start, value) in enumerate(bars):
        y = 8 + row * ROW
        left, right = sorted((across.at(start), across.at(start + value)))
        sign = (value > 0) - (value < 0)
        look = "total" if name == "total" else looks[sign]
        write(root, name, (98, y + 13), "label", "end")
        add(root, "rect", f"bar {look}", x=left, y=y, width=max(right - left, 1.5), height=ROW - 8)
        write(root, points(value), (right + 5, y + 13), "label")
