"""The types of options that take a share, 0..1, and a drop in accuracy."""

import re
from typing import Any

import click


class Share(click.FloatRange):
    """A number in 0..1; who gives per cent is told how to write it."""

    name = "share"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the share. Fails for what is no number, or lies outside."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(f"{error.message.rstrip('.')}: give a share, as .99", param, ctx)


SHARE = Share(0, 1)

_DROP = re.compile(r"((?:\d+\.?\d*|\.\d+)(?:e-?\d+)?)\s*(pp|%)?")


def read_drop(value: str | float) -> float:
    """Return a drop in accuracy, a share of the images, 0..1.

    `0.5pp` (percentage points), `0.5%` or `.005`. Raises ValueError for anything else, a bare 1
    included: who writes it means a point, and as a share it is a gate that nothing fails.
    """
    found = _DROP.fullmatch(str(value).strip())
    number, unit = (float(found[1]), found[2]) if found else (-1.0, None)
    if not 0 <= number <= 100:
        raise ValueError(f"{value!r} is no drop: allowed are 0pp to 100pp, as 0.5pp or .005")
    if unit is None and number >= 1:
        share = f"{number / 100:g}".removeprefix("0")
        raise ValueError(f"{value} would be {100 * number:g} points: give {number:g}pp or {share}")
    return number / 100 if unit else number


# click's types became generic in 8.3; kedge runs on older ones.
class Drop(click.ParamType):  # type: ignore[type-arg]
    """A drop in accuracy, as `read_drop` reads it."""

    name = "drop"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return the share. Fails with what is allowed."""
        try:
            return read_drop(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DROP = Drop()
