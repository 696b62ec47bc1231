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
    "best": ("agreement", "same best class as the float model"),
    "labels": ("labels", "same label set as the float model"),
    "cosine": ("agreement", "same best class as the float model"),
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
    _tell_prepared(console, outcomes)
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
        console.print(f"ratio: to the float32 weights; {': '.join(_agreement(checked))},")
        of = "image" if images == "1" else "images"
        console.print(f"errors: in logits, on {images} validation {of}")
        _say_own_pixels(console, checked)
        _say_interval(console, checked)
        console.print()


def _say_own_pixels(console: Console, checked: "Sequence[Checked]") -> None:
    """Name the loader of own pixels."""
    found = [one.parity.own_pixels for one in checked if one.parity.own_pixels]
    if found:
        console.print(
            f"own: agreement with the float model on own pixels, loaded by {found[0].library}"
        )
        if found[0].library == "TensorFlow" and min(each.agreement for each in found) < 1:
            console.print(f"     {FAST_JPEG}")


def _say_interval(console: Console, checked: "Sequence[Checked]") -> None:
    """Print the confidence interval of the lowest agreement."""
    rows = [one.parity for one in checked]
    known = [(p.agreement, p.agreement_interval, p.images) for p in rows if p.agreement_interval]
    if known:
        _, (low, high), images = min(known)
        on = f"95 % CI of the agreement on {counted(images, 'image')}"
        console.print(f"{on}: {low:.3f} to {high:.3f}")


def _tell_prepared(console: Console, outcomes: "Sequence[Outcome]") -> None:
    """Name the targets that ship prepared weights.

    Only whole int8 files were compared with stock ones; mixed files have a note of their own.
    """
    recipes = {str(each.target): each.checked.recipe for each in outcomes if each.checked}
    prepared = [
        target
        for target, recipe in recipes.items()
        if recipe.method == "prepared" and recipe.precision != "mixed"
    ]
    if prepared:
        console.print("Prepared int8 weights used (closer to the float model than stock):")
        console.print(f"{', '.join(prepared)}\n")


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
        most = 100 * (1 - parity.headline[1])
        return f"accuracy drop: {most:.2f} points at most (no ground truth)"
    low, high = (f"{100 * bound:.2f}" for bound in parity.drop_interval)
    images = counted(parity.images, "image")
    return f"accuracy drop: {100 * parity.drop:.2f} points (95 % CI {low} .. {high}) on {images}"


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
        "-" if measured.agreement is None else f"{measured.agreement:.3f}",
        *((f"{found.agreement:.3f}" if found else "-",) if own else ()),
        f"{measured.logit_max_error:.2g}",
        f"{measured.logit_mean_error:.2g}",
        Text("passed", style="green") if outcome.verdict.passed else Text("rejected", style="red"),
    )
