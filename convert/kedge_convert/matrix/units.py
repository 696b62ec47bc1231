"""Read the numbers of `kedge.toml` with their units; `read_drop` reads `1pp` as --max-drop does."""

import re

from kedge_convert.worker.process import BYTES

# More digits than these are a slip, and some would be infinite.
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]+)?)\s*([kKMGT]?)B")
_PERCENT = re.compile(r"([0-9]{1,15}(?:\.[0-9]+)?)\s*%")
_MOST = 1e15


def read_size(value: object) -> int:
    """Return a size in bytes of `4000000`, `"4MB"` or `"500kB"`; MB is 10^6 bytes.

    Raises ValueError for other values.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"got {value!r}, allowed are bytes, such as 4000000, or '4MB'")
    return round(float(match[1]) * BYTES[match[2].upper()])


def read_ratio(value: object) -> float:
    """Return a ratio of `0.5` or `"50%"`. Raises ValueError for other values."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST:
        return float(value)
    match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"got {value!r}, allowed are numbers, such as 0.5, or '50%'")
    return float(match[1]) / 100


def read_share(value: object) -> float:
    """Return a share, 0..1, of `0.95` or `"95%"`. Raises ValueError for other values."""
    ratio = read_ratio(value)
    if ratio > 1:
        raise ValueError(f"got {value!r}, allowed are 0 to 1, such as 0.95, or '95%'")
    return ratio
