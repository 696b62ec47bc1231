"""Write what a calibration measured: calibrate, convert and drift share it."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from kedge_runtime.artefact.confidence import COVERAGES, Interval
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.confidence.coverage import CoverageCost
from kedge_runtime.errors import counted
from kedge_runtime.output import percent


def plain(contract: Contract) -> dict[str, Any]:
    """Return a contract's confidence for JSON, without the marks of the images."""
    if contract.confidence is None:
        return {}
    data = asdict(contract.confidence)
    del data["images"]
    named = zip(COVERAGES, contract.confidence.floors, strict=False)
    data["floors"] = {str(coverage): floor for coverage, floor in named}
    return {"temperature": contract.output.temperature, **data}


def interval(value: Interval) -> str:
    """Write a share with its interval, as `6.1 % (2.3 to 9.0)`."""
    middle, low, high = value
    return f"{percent(middle)} ({100 * low:.1f} to {100 * high:.1f})"


def fitted(data: dict[str, Any]) -> Iterator[str]:
    """Yield lines on a confidence, as `plain` returns it."""
    yield (
        f"temperature {data['temperature']:g}, fitted to {counted(data['fitted'], 'image')}, "
        f"measured on {data['measured']} others"
    )
    yield f"calibration error {interval(data['before'])} before, {interval(data['after'])} now"
    if data["f1_before"] and data["f1_after"]:
        change = f"{interval(data['f1_before'])} before, {interval(data['f1_after'])} now"
        yield f"F1 of the labels with the thresholds {change}"


def cost_row(cost: CoverageCost) -> str:
    """Return the row of a coverage: what it holds, the mean number of labels, the unknown."""
    ends = f"{100 * cost.low:.1f} to {percent(cost.high)}"
    asked = percent(cost.coverage, 0)
    return f"{asked:<10}{ends:<22}{cost.size:>8.2f}{percent(cost.unknown):>10}"
