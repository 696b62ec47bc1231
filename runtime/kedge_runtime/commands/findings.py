"""Show a finding as rows of a table: for `kedge doctor` and `kedge inspect`."""

from textwrap import wrap

from kedge_runtime.checks.hardware import Finding, State
from kedge_runtime.output import paint
from kedge_runtime.printable import printable

COLOURS: dict[State, str] = {"ok": "green", "note": "yellow", "problem": "red"}
STATE, NAME = 9, 13  # widths of the columns
WIDEST = 100


def lines(name: str, finding: Finding, width: int) -> list[str]:
    """Return a finding as rows of a table `width` columns wide, its fix below it."""
    room, indent = max(width - STATE - NAME, 20), " " * (STATE + NAME)
    first, *others = _wrapped(finding.detail, room) or [""]
    state = paint(f"{finding.state:<{STATE}}", COLOURS[finding.state])
    fix = _wrapped(f"-> {finding.fix}", room, hanging="   ") if finding.fix else []
    return [f"{state}{name:<{NAME}}{first}", *(indent + line for line in [*others, *fix])]


def _wrapped(text: str, room: int, hanging: str = "") -> list[str]:
    return wrap(
        printable(text),
        room,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
