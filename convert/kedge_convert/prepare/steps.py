"""Hold values as an int8 tensor does: in 256 steps from the least to the largest."""

import numpy as np

from kedge_runtime.arrays import Floats

STEPS = 255
PART = 1 << 16  # numbers: several operations on them stay in a core's cache


def in_steps(value: Floats) -> Floats:
    """Return the nearest of the 256 steps to each number, in place where it can be written.

    Zero is one of the steps, as padding needs it.
    """
    low, high = _ends(value)
    step = _step(low, high)
    zero = np.rint(-low / step)
    least, most, width = (np.float32(x) for x in (-zero, STEPS - zero, step))
    first, last = np.rint(np.array([low, high], np.float32) / width)
    inside = least <= first and last <= most  # then all are, and none needs clipping
    steps = value if value.flags.writeable else np.empty_like(value)
    for taken, given in zip(_parts(value), _parts(steps), strict=True):
        np.divide(taken, width, out=given)
        np.rint(given, out=given)
        if not inside:
            np.maximum(given, least, out=given)
            np.minimum(given, most, out=given)
        np.multiply(given, width, out=given)
    return steps


def low_and_step(value: Floats) -> tuple[float, float]:
    """Return the least value, or zero, and the step of an int8 tensor of these values."""
    low, high = _ends(value)
    return low, _step(low, high)


def _ends(value: Floats) -> tuple[float, float]:
    """Return the least and the largest value; zero lies between."""
    ends = [(float(part.min()), float(part.max())) for part in _parts(value)]
    lows, highs = zip((0.0, 0.0), *ends, strict=True)
    return min(lows), max(highs)


def _step(low: float, high: float) -> float:
    return max(high - low, 1e-12) / STEPS


def _parts(value: Floats) -> list[Floats]:
    """Return views of a contiguous value, PART numbers each."""
    flat = value.reshape(-1)
    return [flat[at : at + PART] for at in range(0, flat.size, PART)]
