"""Write figures for people: shares in percent, drops and differences in points."""

from kedge_runtime.drift.gates import Estimate, Gate


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


def judged(gate: Gate, digits: int = 1) -> str:
    """Write a gate's figure and limit: `agreement 98.2 % (96.6 to 99.1), at least 95.0 %`."""
    if gate.name == "max_drop":
        figure = f"top-1 drop {drop_interval(gate.value, digits)}"
    else:
        figure = f"agreement {share_interval(gate.value)}"
    return f"{figure}, {limit(gate, digits)}"


def limit(gate: Gate, digits: int = 1) -> str:
    """Write a gate's limit, as `at most 1.0 points`."""
    if gate.name == "max_drop":
        return f"at most {points(gate.limit, digits)}"
    return f"at least {percent(gate.limit)}"
