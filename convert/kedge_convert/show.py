"""The closing table of a conversion."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table

if TYPE_CHECKING:
    from kedge_convert.pipeline import Outcome

COLUMNS = ("target", "size", "ratio", "top-1", "max error", "mean error", "verdict")


def table(outcomes: "Sequence[Outcome]") -> None:
    """Print target, size, ratio, agreement, logit errors and verdict, then where the files lie."""
    console = Console(highlight=False)
    grid = Table(box=box.SIMPLE_HEAD)
    for column in COLUMNS:
        side: JustifyMethod = "left" if column in ("target", "verdict") else "right"
        grid.add_column(column, justify=side, no_wrap=True)
    for outcome in outcomes:
        grid.add_row(*_row(outcome))
    console.print(grid)
    images = outcomes[0].parity.images
    console.print("ratio: to the float32 weights; top-1: agreement with the float original,")
    console.print(f"errors: in logits, on {images} pictures that were not used for calibration\n")
    prepared = [str(outcome.target) for outcome in outcomes if outcome.method == "prepared"]
    if prepared:
        console.print(f"prepared weights, nearer to the original: {', '.join(prepared)}\n")
    for outcome in outcomes:
        console.print(str(outcome.path), soft_wrap=True)
        for reason in outcome.verdict.reasons:
            console.print(f"  rejected: {reason}", style="red", soft_wrap=True)


def _row(outcome: "Outcome") -> tuple[str, ...]:
    measured = outcome.parity
    return (
        str(outcome.target),
        f"{outcome.size / 1e6:.2f} MB",
        f"{outcome.ratio:.2f}",
        f"{measured.top1:.3f}",
        f"{measured.logit_max_error:.2g}",
        f"{measured.logit_mean_error:.2g}",
        "[green]passed[/]" if outcome.verdict.passed else "[red]rejected[/]",
    )
