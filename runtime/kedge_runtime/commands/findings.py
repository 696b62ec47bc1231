"""Show a finding as rows of a table: for `kedge doctor` and `kedge inspect`."""

from kedge_runtime.checks.hardware import Finding, State
from kedge_runtime.output import paint
from kedge_runtime.printable import printable
from kedge_runtime.terminal import wrapped

COLOURS: dict[State, str] = {"ok": "green", "note": "yellow", "problem": "red"}
STATE, NAME = 9, 13  # widths of the columns


def lines(name: str, finding: Finding, width: int) -> list[str]:
    """Return a finding as rows of a table `width` columns wide, its fix below it."""
    room, indent = max(width - STATE - NAME, 20), " " * (STATE + NAME)
    first, *others = _wrapped(finding.detail, room)
    state = paint(f"{finding.state:<{STATE}}", COLOURS[finding.state])
    fix = _wrapped(f"-> {finding.fix}", room, hanging="   ") if finding.fix else []
    return [f"{state}{name:<{NAME}}{first}", *(indent + line for line in [*others, *fix])]


def _wrapped(text: str, room: int, hanging: str = "") -> list[str]:
    return wrapped(printable(text), room, hanging=hanging)
