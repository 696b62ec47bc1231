"""Write figures for people: shares in percent, drops and differences in points."""

from kedge_runtime.drift.gates import Estimate


def percent(share: float) -> str:
    """Write a share, 0..1, as `98.2 %`."""
    return f"{100 * share:.1f} %"


def number(share: float, digits: int = 1) -> str:
    """Write a share or a difference times 100, without its unit; a zero has no sign."""
    return f"{round(100 * share, digits) or 0.0:.{digits}f}"


def points(difference: float, digits: int = 1) -> str:
    """Write a difference of shares, -1..1, as `0.4 points`."""
    return f"{number(difference, digits)} points"


def share_interval(value: Estimate) -> str:
    """Write a share with its interval, as `98.2 % (96.6 to 99.1)`."""
    return f"{percent(value.value)} ({number(value.low)} to {number(value.high)})"


def drop_interval(value: Estimate, digits: int = 1) -> str:
    """Write a drop with its interval, as `0.4 points (-0.3 to 1.1)`: positive is a loss."""
    low, high = (number(end, digits) for end in (value.low, value.high))
    return f"{points(value.value, digits)} ({low} to {high})"
