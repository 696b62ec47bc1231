"""Draw the plots of a report as SVG; the page's style sheet has the colours.

Axes of shares end at 100 % and begin at 0, or at a step of 20 points: so one image of a hundred is
never more than a twentieth of the height.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor
from xml.etree.ElementTree import Element

from markupsafe import Markup

from kedge_convert.matrix.drawing import Axis, Point, add, canvas, line, markup, write
from kedge_convert.matrix.record import CellReport
from kedge_runtime.drift.gates import Estimate, Verdict, share
from kedge_runtime.drift.report import Attribution, Calibrations, Coverage, CoveragePoint, points
from kedge_runtime.errors import counted
from kedge_runtime.output import percent

WIDTH, HEIGHT = 340, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 20, 24, 40
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
    """Return the accuracy, or without ground truth the agreement, with its interval."""
    if cell.drift is None:
        return None
    if cell.drift.top1 is None:
        return cell.drift.agreement
    pairs = cell.drift.top1.pairs
    return share(pairs.both + pairs.gained, pairs.total)


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
    floats = [cell.drift.top1.reference for cell in cells if cell.drift and cell.drift.top1]
    best = front(marks)
    names = ", ".join(f"{mark.number}" for mark in best)
    title = f"{what} against {unit} of {counted(len(marks), 'artefact')}; Pareto front: {names}"
    root = canvas(WIDTH, HEIGHT, title)
    across, up = _axes(marks)
    _frame(root, across, up, (what, unit), "{:.4g}".format)
    for accuracy in floats[:1]:
        y = up.at(accuracy)
        line(root, [(across.start, y), (across.end, y)], "line reference")
    line(root, [(across.at(p.cost), up.at(p.quality)) for p in best], "front")
    for mark in marks:
        x = across.at(mark.cost)
        _whisker(root, x, up.at(mark.low), up.at(mark.high))
        _mark(root, mark.verdict, x, up.at(mark.quality))
    write_numbers(root, marks, across, up)
    return markup(root)


def _whisker(root: Element, x: float, low: float, high: float) -> None:
    """Draw an interval: a stroke with an end at each side, visible behind its mark."""
    line(root, [(x, low), (x, high)], "interval")
    for y in (low, high):
        line(root, [(x - 7, y), (x + 7, y)], "interval")


def front(marks: Sequence[PlotPoint]) -> list[PlotPoint]:
    """Return the Pareto front, by cost: no other mark is better at the same cost or less."""
    best: list[PlotPoint] = []
    for mark in sorted(marks, key=lambda each: (each.cost, -each.quality)):
        if not best or mark.quality > best[-1].quality:
            best.append(mark)
    return best


def _axes(marks: Sequence[PlotPoint]) -> tuple[Axis, Axis]:
    dearest = max(mark.cost for mark in marks) or 1.0
    across = Axis(0.0, 1.15 * dearest, LEFT, WIDTH - RIGHT)
    least = min(mark.low for mark in marks)
    return across, Axis(min(floor(5 * least), 4) / 5, 1, HEIGHT - BOTTOM, TOP)


def _as_percent(value: float) -> str:
    return f"{100 * value:.4g} %"


def _frame(
    root: Element,
    across: Axis,
    up: Axis,
    names: tuple[str, str],
    shown: Callable[[float], str] = _as_percent,
) -> None:
    for tick in up.ticks():
        y = up.at(tick)
        line(root, [(across.start, y), (across.end, y)], "grid")
        write(root, _as_percent(tick), (across.start - 6, y + 4), "tick", "end")
    for tick in across.ticks():
        write(root, shown(tick), (across.at(tick), up.start + 15), "tick", "middle")
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


def write_numbers(root: Element, marks: Sequence[PlotPoint], across: Axis, up: Axis) -> None:
    """Write the numbers beside the marks, apart from each other and from a close mark's right."""
    written: list[Point] = []
    places = [across.at(mark.cost) for mark in marks]
    for mark in sorted(marks, key=lambda each: -each.quality):
        at, y = across.at(mark.cost), up.at(mark.quality) + 15
        crowded = any(0 < place - at < 2 * LABEL for place in places)
        x, anchor = (at - 10, "end") if crowded else (at + 10, "start")
        while any(abs(x - a) < LABEL and abs(y - b) < LABEL for a, b in written):
            y += LABEL
        written.append((x, y))
        write(root, str(mark.number), (x, y), "number", anchor)


def reliability(calibrations: Calibrations) -> Markup:
    """Draw the accuracy of both sides by their confidence."""
    sides = {"reference": calibrations.reference, "artefact": calibrations.artefact}
    errors = ", ".join(f"{name} {percent(side.ece)}" for name, side in sides.items())
    root = canvas(WIDTH, HEIGHT, f"reliability diagram; calibration error: {errors}")
    across, up = Axis(0, 1, LEFT, WIDTH - RIGHT), Axis(0, 1, HEIGHT - BOTTOM, TOP)
    _frame(root, across, up, ("right", "confidence"))
    line(root, [(across.at(0), up.at(0)), (across.at(1), up.at(1))], "diagonal")
    for name, side in sides.items():
        most = max(each.images for each in side.bins)
        for each in side.bins:
            if each.confidence is not None and each.accuracy is not None:
                right = share(round(each.accuracy * each.images), each.images)
                x = across.at(each.confidence)
                line(root, [(x, up.at(right.low)), (x, up.at(right.high))], f"interval {name}")
                _dot(root, name, (x, up.at(each.accuracy)), each.images / most)
    return markup(root)


def _dot(root: Element, name: str, at: Point, weight: float) -> None:
    """Draw a mark whose area grows with the number of images."""
    radius = round(1.5 + 4 * weight**0.5, 1)
    if name == "reference":
        add(root, "circle", "dot reference", cx=at[0], cy=at[1], r=radius)
    else:
        corner = {"x": round(at[0] - radius, 1), "y": round(at[1] - radius, 1)}
        add(root, "rect", "dot artefact", width=2 * radius, height=2 * radius, **corner)


def coverage(found: Coverage) -> Markup:
    """Draw what each side answers, and the accuracy of it, over the least confidence."""
    sides = {"reference": found.reference, "artefact": found.artefact}
    root = canvas(WIDTH, HEIGHT, "share answered and accuracy of the answers by least confidence")
    across, up = Axis(0, 1, LEFT, WIDTH - RIGHT), Axis(0, 1, HEIGHT - BOTTOM, TOP)
    _frame(root, across, up, ("of the images", "least confidence"))
    for name, side in sides.items():
        answered = [(at.threshold, answered_share(side, at)) for at in side]
        right = [(at.threshold, known) for at in side if (known := accuracy_of(at)) is not None]
        for values, look in ((answered, "answered"), (right, "right")):
            line(root, [(across.at(x), up.at(y)) for x, y in values], f"line {name} {look}")
    return markup(root)


def answered_share(side: Sequence[CoveragePoint], at: CoveragePoint) -> float:
    """Return the share of all images that are answered at a threshold."""
    return at.answered / side[0].answered


def accuracy_of(at: CoveragePoint) -> float | None:
    """Return the accuracy of what is answered, None without an answer or ground truth."""
    return at.right / at.answered if at.right is not None and at.answered else None


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
