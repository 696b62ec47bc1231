"""The closing table of a conversion."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from kedge_convert.commands.console import console
from kedge_convert.device.report import fit_rows
from kedge_runtime.errors import counted
from kedge_runtime.output import echo, echo_folded, percent

if TYPE_CHECKING:
    from kedge_convert.job import Checked, Outcome
    from kedge_convert.parity import Parity
    from kedge_runtime.drift.statistics import AgreementBy

# What counts as agreement.
AGREEMENTS: "dict[AgreementBy, str]" = {
    "best": "images with the float model's best class",
    "labels": "images with the float model's set of labels",
    "cosine": "mean cosine to the float model's features",
}
FAST_JPEG = "(it decodes JPEG by a faster, less exact transform: docs/preprocessing.md)"


def table(outcomes: "Sequence[Outcome]", *, drop: bool = False) -> None:
    """Print target, size, ratio, agreement, logit errors and verdict, then the files' paths.

    `drop`: whether to print the drop in accuracy, because it is limited.
    """
    checked = [outcome.checked for outcome in outcomes if outcome.checked]
    own = any(one.parity.own_pixels for one in checked)
    console().print(_grid(outcomes, own=own))
    for line in _explanation(outcomes):
        echo_folded(line)
    for outcome in outcomes:
        _result(outcome)
        if drop and outcome.checked:
            echo_folded(f"  {_drop(outcome.checked.parity)}")


def _grid(outcomes: "Sequence[Outcome]", *, own: bool) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
    # With one column more, the words have a line each: the table fits 80 columns.
    errors = ("own", "max\nerror", "mean\nerror") if own else ("max error", "mean error")
    for column in ("target", "size", "ratio", "agreement", *errors, "verdict"):
        side: JustifyMethod = "left" if column in ("target", "verdict") else "right"
        grid.add_column(column, justify=side, no_wrap=True)
    for outcome in outcomes:
        grid.add_row(*_row(outcome, own=own))
    return grid


def _explanation(outcomes: "Sequence[Outcome]") -> Iterator[str]:
    """Yield what the columns mean, the interval, and the targets with prepared weights."""
    checked = [outcome.checked for outcome in outcomes if outcome.checked]
    if checked:
        counts = sorted({one.parity.images for one in checked})
        images = counted(counts[0], "image")
        if len(counts) > 1:
            images = f"{counts[0]} to {counts[-1]} images"
        yield "ratio: to the float32 weights"
        # All targets are of one model.
        yield f"agreement: {AGREEMENTS[checked[0].parity.agreement_by]}"
        yield f"errors: in {_unit(checked[0])}, on {images} not used for calibration"
        yield from _own_pixels(checked)
        yield from _interval(outcomes)
        yield ""
    yield from _prepared(outcomes)


def _unit(checked: "Checked") -> str:
    """Return what a file's numbers are: a program that computes no probabilities gets them."""
    if checked.parity.agreement_by == "cosine":
        return "features"
    return "probabilities" if checked.fit and checked.fit.device.loader else "logits"


def _own_pixels(checked: "Sequence[Checked]") -> Iterator[str]:
    own = [one.parity.own_pixels for one in checked if one.parity.own_pixels]
    if own:
        yield f"own: agreement if {own[0].library} loads the float model's images, as in training"
        if own[0].library == "TensorFlow" and min(each.agreement for each in own) < 1:
            yield f"     {FAST_JPEG}"


def _interval(outcomes: "Sequence[Outcome]") -> Iterator[str]:
    """Yield the confidence interval of the lowest agreement, and the target that it is of."""
    measured = [(str(each.target), each.checked.parity) for each in outcomes if each.checked]
    known = [
        (parity.agreement, parity.agreement_interval, parity.images, target)
        for target, parity in measured
        if parity.agreement_interval
    ]
    if known:
        _, (low, high), images, target = min(known)
        what = "the agreement" if len(known) == 1 else f"the lowest agreement ({target})"
        on = f"95 % CI of {what} on {counted(images, 'image')}"
        yield f"{on}: {percent(low)} to {percent(high)}"


def _prepared(outcomes: "Sequence[Outcome]") -> Iterator[str]:
    """Yield the targets with prepared weights; mixed files have a note of their own."""
    recipes = {str(each.target): each.checked.recipe for each in outcomes if each.checked}
    prepared = [
        target
        for target, recipe in recipes.items()
        if recipe.method == "prepared" and recipe.precision != "mixed"
    ]
    if prepared:
        words = "Prepared int8 weights used (closer to the float model than stock)"
        yield f"{words}: {', '.join(prepared)}"
        yield ""


def _result(outcome: "Outcome") -> None:
    """Print a target's path, or that it failed, with reasons, notes and the device's rows."""
    word = "rejected" if outcome.checked else "failed"
    echo(str(outcome.checked.path if outcome.checked else outcome.target))
    for reason in outcome.verdict.reasons:
        echo_folded(f"  {word}: {reason}", colour="red")
    for note in outcome.notes:
        echo_folded(f"  {note}")
    if outcome.checked and outcome.checked.fit:
        echo(*fit_rows(outcome.checked.fit))
    if outcome.checked and outcome.checked.compiled:
        echo(str(outcome.checked.compiled))
    if outcome.checked and outcome.checked.folder:
        echo(str(outcome.checked.folder))


def _drop(parity: "Parity") -> str:
    """Return the drop in accuracy in points, or its upper bound."""
    if parity.drop is None or parity.drop_interval is None:
        most = 100 * (1 - parity.headline[1])
        return f"drop in accuracy: at most {most:.2f} points, as there is no ground truth"
    low, high = (f"{100 * bound:.2f}" for bound in parity.drop_interval)
    interval = f"95 % CI: {low} to {high}"
    images = counted(parity.images, "image")
    return f"drop in accuracy: {100 * parity.drop:.2f} points ({interval}) on {images}"


def _agreement(parity: "Parity") -> str:
    """Return the share of images, or of features the cosine."""
    _, value = parity.headline
    return f"{value:.4f}" if parity.agreement is None else percent(value)


def _size(megabytes: float) -> str:
    digits = 2 if megabytes < 10 else 1 if megabytes < 100 else 0
    return f"{megabytes:.{digits}f} MB"


def _error(value: float) -> str:
    """Return two digits; 8.6e-6 is a column less than Python's 8.6e-06, and 80 hold the table."""
    return f"{value:.2g}".replace("e-0", "e-")


def _row(outcome: "Outcome", *, own: bool) -> tuple[str | Text, ...]:
    checked = outcome.checked
    if checked is None:
        dashes = "-" * (6 if own else 5)
        return (str(outcome.target), *dashes, Text("failed", style="red"))
    measured = checked.parity
    own_pixels = measured.own_pixels
    return (
        str(outcome.target),
        _size(checked.size / 1e6),
        f"{checked.ratio:.2f}",
        _agreement(measured),
        *((percent(own_pixels.agreement) if own_pixels else "-",) if own else ()),
        _error(measured.logit_max_error),
        _error(measured.logit_mean_error),
        Text("passed", style="green") if outcome.verdict.passed else Text("rejected", style="red"),
    )
