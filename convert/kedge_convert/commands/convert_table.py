"""The closing table of a conversion."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from kedge_convert.device.report import fit_rows
from kedge_runtime.errors import counted
from kedge_runtime.output import echo
from kedge_runtime.printable import printable

if TYPE_CHECKING:
    from kedge_convert.job import Checked, Outcome
    from kedge_convert.parity import Parity
    from kedge_runtime.drift.statistics import AgreementBy

# What counts as agreement; features have none in the table.
AGREEMENTS: "dict[AgreementBy, str]" = {
    "best": "images with the float model's best class",
    "labels": "images with the float model's set of labels",
    "cosine": "images with the float model's best class",
}
FAST_JPEG = "(it decodes JPEG by a faster, less exact transform: docs/preprocessing.md)"


def table(outcomes: "Sequence[Outcome]", *, drop: bool = False) -> None:
    """Print target, size, ratio, agreement, logit errors and verdict, then the files' paths.

    `drop`: whether to print the drop in accuracy, because it is limited.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    checked = [outcome.checked for outcome in outcomes if outcome.checked]
    own = any(one.parity.own_pixels for one in checked)
    console.print(_grid(outcomes, own=own))
    _explain(console, checked)
    _name_prepared(console, outcomes)
    for outcome in outcomes:
        _result(console, outcome)
        if drop and outcome.checked:
            console.print(f"  {_drop(outcome.checked.parity)}", soft_wrap=True)


def _grid(outcomes: "Sequence[Outcome]", *, own: bool) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
    # With one column more, the words are shorter: the table fits 80 columns.
    errors = ("own", "max err", "mean err") if own else ("max error", "mean error")
    for column in ("target", "size", "ratio", "agreement", *errors, "verdict"):
        side: JustifyMethod = "left" if column in ("target", "verdict") else "right"
        grid.add_column(column, justify=side, no_wrap=True)
    for outcome in outcomes:
        grid.add_row(*_row(outcome, own=own))
    return grid


def _explain(console: Console, checked: "Sequence[Checked]") -> None:
    if checked:
        counts = sorted({one.parity.images for one in checked})
        images = counted(counts[0], "image")
        if len(counts) > 1:
            images = f"{counts[0]} to {counts[-1]} images"
        # All targets are of one model.
        agreement = AGREEMENTS[checked[0].parity.agreement_by]
        console.print("ratio: to the float32 weights")
        console.print(f"agreement: {agreement}")
        console.print(f"errors: in logits, on {images} not used for calibration")
        _explain_own_pixels(console, checked)
        _print_interval(console, checked)
        console.print()


def _explain_own_pixels(console: Console, checked: "Sequence[Checked]") -> None:
    own = [one.parity.own_pixels for one in checked if one.parity.own_pixels]
    if own:
        console.print(
            f"own: agreement with the float model on own pixels, loaded by {own[0].library}"
        )
        if own[0].library == "TensorFlow" and min(each.agreement for each in own) < 1:
            console.print(f"     {FAST_JPEG}")


def _print_interval(console: Console, checked: "Sequence[Checked]") -> None:
    """Print the confidence interval of the lowest agreement."""
    parities = [one.parity for one in checked]
    known = [
        (p.agreement, p.agreement_interval, p.images) for p in parities if p.agreement_interval
    ]
    if known:
        _, (low, high), images = min(known)
        on = f"95 % CI of the agreement on {counted(images, 'image')}"
        console.print(f"{on}: {percent(low)} to {percent(high)}")


def _name_prepared(console: Console, outcomes: "Sequence[Outcome]") -> None:
    """Name the targets with prepared weights; mixed files have a note of their own."""
    recipes = {str(each.target): each.checked.recipe for each in outcomes if each.checked}
    prepared = [
        target
        for target, recipe in recipes.items()
        if recipe.method == "prepared" and recipe.precision != "mixed"
    ]
    if prepared:
        words = "Prepared int8 weights used (closer to the float model than stock)"
        console.print(f"{words}: {', '.join(prepared)}\n")


def _result(console: Console, outcome: "Outcome") -> None:
    """Print a target's path, or that it failed, with reasons, notes and the device's rows."""
    word = "rejected" if outcome.checked else "failed"
    path = outcome.checked.path if outcome.checked else outcome.target
    console.print(printable(path), soft_wrap=True)
    for reason in outcome.verdict.reasons:
        console.print(f"  {word}: {printable(reason)}", style="red", soft_wrap=True)
    for note in outcome.notes:
        console.print(f"  {printable(note)}", soft_wrap=True)
    if outcome.checked and outcome.checked.fit:
        echo(*fit_rows(outcome.checked.fit))
    if outcome.checked and outcome.checked.compiled:
        console.print(printable(outcome.checked.compiled), soft_wrap=True)


def _drop(parity: "Parity") -> str:
    """Return the drop in accuracy in points, or its upper bound."""
    if parity.drop is None or parity.drop_interval is None:
        most = 100 * (1 - parity.headline[1])
        return f"drop in accuracy: at most {most:.2f} points, as there is no ground truth"
    low, high = (f"{100 * bound:.2f}" for bound in parity.drop_interval)
    interval = f"95 % CI: {low} to {high}"
    images = counted(parity.images, "image")
    return f"drop in accuracy: {100 * parity.drop:.2f} points ({interval}) on {images}"


def _row(outcome: "Outcome", *, own: bool) -> tuple[str | Text, ...]:
    checked = outcome.checked
    if checked is None:
        dashes = "-" * (6 if own else 5)
        return (str(outcome.target), *dashes, Text("failed", style="red"))
    measured = checked.parity
    own_pixels = measured.own_pixels
    return (
        str(outcome.target),
        f"{checked.size / 1e6:.2f} MB",
        f"{checked.ratio:.2f}",
        "-" if measured.agreement is None else percent(measured.agreement),
        *((percent(own_pixels.agreement) if own_pixels else "-",) if own else ()),
        f"{measured.logit_max_error:.2g}",
        f"{measured.logit_mean_error:.2g}",
        Text("passed", style="green") if outcome.verdict.passed else Text("rejected", style="red"),
    )


def percent(share: float) -> str:
    """Return a share as e.g. `98.5 %`."""
    return f"{100 * share:.1f} %"
