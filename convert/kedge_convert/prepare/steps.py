"""Hold values as an int8 tensor does: in 256 steps from the least to the largest."""

import numpy as np

from kedge_runtime.arrays import Floats

STEPS = 255
PART = 1 << 16  # numbers: several operations on them stay in a core's cache


def in_steps(value: Floats) -> Floats:
    """Return the nearest of the 256 steps to each number, in place where it can be written.

    Zero is one of the steps, as padding needs it.
    """
    steps = value if value.flags.writeable else np.empty_like(value)
    _hold(value, steps, ends_of(value))
    return steps


def in_steps_between(value: Floats, ends: tuple[float, float]) -> Floats:
    """Return the nearest of the 256 steps between `ends` to each number, a new array."""
    steps = np.empty_like(value)
    _hold(value, steps, ends)
    return steps


def _hold(value: Floats, steps: Floats, ends: tuple[float, float]) -> None:
    low, high = ends
    step = _step(low, high)
    zero = np.rint(-low / step)
    least, most, width = (np.float32(x) for x in (-zero, STEPS - zero, step))
    first, last = np.rint(np.array([low, high], np.float32) / width)
    inside = least <= first and last <= most  # then all are, and none needs clipping
    for taken, given in zip(_parts(value), _parts(steps), strict=True):
        np.divide(taken, width, out=given)
        np.rint(given, out=given)
        if not inside:
            np.maximum(given, least, out=given)
            np.minimum(given, most, out=given)
        np.multiply(given, width, out=given)


def low_and_step(*values: Floats) -> tuple[float, float]:
    """Return the least value, or zero, and the step of an int8 tensor of these values."""
    low, high = ends_of(*values)
    return low, _step(low, high)


def ends_of(*values: Floats) -> tuple[float, float]:
    """Return the least and the largest value; zero lies between."""
    ends = [(float(part.min()), float(part.max())) for value in values for part in _parts(value)]
    lows, highs = zip((0.0, 0.0), *ends, strict=True)
    return min(lows), max(highs)


def _step(low: float, high: float) -> float:
    return max(high - low, 1e-12) / STEPS


def _parts(value: Floats) -> list[Floats]:
    """Return views of a contiguous value, PART numbers each."""
    flat = value.reshape(-1)
    return [flat[at : at + PART] for at in range(0, flat.size, PART)]
