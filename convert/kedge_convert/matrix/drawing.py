"""Draw lines, texts and axes as SVG; the page's style sheet has the colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

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
    root.set("style", f"max-width:{1.3 * width:.0f}px")
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
