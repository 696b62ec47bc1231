"""The closing table of a conversion."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from kedge_convert.commands.inspect import fitting
from kedge_runtime.errors import counted
from kedge_runtime.output import echo
from kedge_runtime.printable import printable

if TYPE_CHECKING:
    from kedge_convert.job import Checked, Outcome
    from kedge_convert.parity import Parity
    from kedge_runtime.drift.metrics import AgreementBy

# The column of the agreement and what it is; features have none in it.
COLUMNS: "dict[AgreementBy, tuple[str, str]]" = {
    "best": ("top-1", "agreement with the float original"),
    "labels": ("labels", "pictures with the float original's set"),
    "cosine": ("top-1", "agreement with the float original"),
}


FAST_JPEG = "(it decodes JPEG by a faster, less exact transform: docs/preprocessing.md)"


def table(outcomes: "Sequence[Outcome]", *, drop: bool = False) -> None:
    """Print target, size, ratio, agreement, logit errors and verdict, then where the files lie.

    `drop`: whether the accuracy lost is limited, and so told.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    checked = [outcome.checked for outcome in outcomes if outcome.checked]
    grid = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
    agreement, _ = _agreement(checked)
    own = any(one.parity.own_pixels for one in checked)
    # With one column more, the words are shorter: the table fits 80 columns.
    errors = ("own", "max err", "mean err") if own else ("max error", "mean error")
    for column in ("target", "size", "ratio", agreement, *errors, "verdict"):
        side: JustifyMethod = "left" if column in ("target", "verdict") else "right"
        grid.add_column(column, justify=side, no_wrap=True)
    for outcome in outcomes:
        grid.add_row(*_row(outcome, own=own))
    console.print(grid)
    _explain(console, checked)
    _tell_adjusted(console, outcomes)
    for outcome in outcomes:
        _end(console, outcome)
        if drop and outcome.checked:
            console.print(f"  {_drop(outcome.checked.parity)}", soft_wrap=True)


def _agreement(checked: "Sequence[Checked]") -> tuple[str, str]:
    """Return the entry of COLUMNS; all targets are of one model."""
    return COLUMNS[checked[0].parity.agreement_by if checked else "best"]


def _explain(console: Console, checked: "Sequence[Checked]") -> None:
    if checked:
        counts = sorted({one.parity.images for one in checked})
        images = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        pictures = "a picture that was" if images == "1" else f"{images} pictures that were"
        console.print(f"ratio: to the float32 weights; {': '.join(_agreement(checked))},")
        console.print(f"errors: in logits, on {pictures} not used for calibration")
        _say_own_pixels(console, checked)
        _say_interval(console, checked)
        console.print()


def _say_own_pixels(console: Console, checked: "Sequence[Checked]") -> None:
    """Say what the second judge is fed with."""
    found = [one.parity.own_pixels for one in checked if one.parity.own_pixels]
    if found:
        console.print(
            f"own: agreement with the float model on own pixels, loaded by {found[0].library}"
        )
        if found[0].library == "TensorFlow" and min(each.agreement for each in found) < 1:
            console.print(f"     {FAST_JPEG}")


def _say_interval(console: Console, checked: "Sequence[Checked]") -> None:
    """Say what the pictures leave open of the lowest agreement."""
    parities = [one.parity for one in checked]
    known = [(p.top1, p.top1_interval, p.images) for p in parities if p.top1_interval]
    if known:
        top1, (low, high), images = min(known)
        what = "a top-1" if checked[0].parity.agreement_by == "best" else "an agreement"
        on = f"95 % interval: on {counted(images, 'picture')}"
        console.print(f"{on} {what} of {top1:.3f} may be {low:.3f} to {high:.3f}")


def _tell_adjusted(console: Console, outcomes: "Sequence[Outcome]") -> None:
    """Name the targets that ship prepared weights; only whole int8 files were held against stock
    ones, mixed files have a note of their own.
    """
    ways = {str(each.target): each.checked.way for each in outcomes if each.checked}
    adjusted = [
        target
        for target, way in ways.items()
        if way.method == "prepared" and way.precision != "mixed"
    ]
    if adjusted:
        console.print("int8 weights adjusted before quantising, which measured nearer to the float")
        console.print(f"original than the stock conversion: {', '.join(adjusted)}\n")


def _end(console: Console, outcome: "Outcome") -> None:
    """Print where a target's file lies, or that there is none, and what is to be said of it."""
    word = "rejected" if outcome.checked else "failed"
    path = outcome.checked.path if outcome.checked else outcome.target
    console.print(printable(path), soft_wrap=True)
    for reason in outcome.verdict.reasons:
        console.print(f"  {word}: {printable(reason)}", style="red", soft_wrap=True)
    for note in outcome.notes:
        console.print(f"  {printable(note)}", soft_wrap=True)
    if outcome.checked and outcome.checked.fit:
        echo(*fitting(outcome.checked.fit))
    if outcome.checked and outcome.checked.compiled:
        console.print(printable(outcome.checked.compiled), soft_wrap=True)


def _drop(parity: "Parity") -> str:
    """Say how much accuracy is lost, in percentage points, or how much at most."""
    if parity.drop is None or parity.drop_interval is None:
        most = 100 * (1 - parity.agreement[1])
        return f"drop in accuracy: {most:.2f} pp at most, as no true classes are known"
    low, high = (f"{100 * end:.2f}" for end in parity.drop_interval)
    images = counted(parity.images, "picture")
    return f"drop in accuracy: {100 * parity.drop:.2f} pp (95 %: {low} .. {high}) on {images}"


def _row(outcome: "Outcome", *, own: bool) -> tuple[str | Text, ...]:
    checked = outcome.checked
    if checked is None:
        dashes = "-" * (6 if own else 5)
        return (str(outcome.target), *dashes, Text("failed", style="red"))
    measured = checked.parity
    found = measured.own_pixels
    return (
        str(outcome.target),
        f"{checked.size / 1e6:.2f} MB",
        f"{checked.ratio:.2f}",
        "-" if measured.top1 is None else f"{measured.top1:.3f}",
        *((f"{found.agreement:.3f}" if found else "-",) if own else ()),
        f"{measured.logit_max_error:.2g}",
        f"{measured.logit_mean_error:.2g}",
        Text("passed", style="green") if outcome.verdict.passed else Text("rejected", style="red"),
    )
