"""Pictures for calibration and, never the same ones, for the parity check."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.contract import Input
from kedge_runtime.errors import ImageError, UsageError
from kedge_runtime.image import SUFFIXES, read_image
from kedge_runtime.preprocessing import Preprocessor

MINIMUM = 10

Tick = Callable[[], None]


@dataclass(frozen=True)
class Photos:
    """File names only: pictures are read when they are needed, so any number fits in memory."""

    calibration: tuple[Path, ...]
    check: tuple[Path, ...]
    broken: tuple[Path, ...] = ()

    @property
    def held_out(self) -> tuple[Path, ...]:
        """A sixth of the calibration pictures: weights are never fitted to them, so that they can
        tell which of two ways to quantise is the better.
        """
        return self.calibration[-max(1, len(self.calibration) // 6) :]

    @property
    def fitting(self) -> tuple[Path, ...]:
        """The other calibration pictures."""
        return self.calibration[: -len(self.held_out)]

    def calibration_digest(self) -> str:
        """Return the SHA-256 of the calibration files' contents, in order."""
        return _digest(self.calibration)


# Every artefact and every candidate states it: the files are read once.
@lru_cache(maxsize=1)
def _digest(paths: tuple[Path, ...]) -> str:
    hasher = hashlib.sha256()
    for path in paths:
        hasher.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{hasher.hexdigest()}"


@dataclass(frozen=True)
class Sampling:
    """How many pictures to take, and the seed of the draw."""

    calibration: int = 200
    check: int = 100
    seed: int = 0


def collect(folder: Path, sampling: Sampling, tick: Tick = lambda: None) -> Photos:
    """Draw calibration and check pictures from a folder, at any depth, without overlap.

    A third of a small folder is kept for the check. Unreadable pictures are passed over and
    listed. Raises UsageError when fewer than MINIMUM pictures are readable (and more were asked).
    """
    found = find(folder)
    order = np.random.default_rng(sampling.seed).permutation(len(found))
    wanted = sampling.calibration + sampling.check
    readable, broken = _draw([found[i] for i in order], wanted, tick)
    if len(readable) < min(MINIMUM, wanted):
        raise UsageError(
            f"{folder}: {len(readable)} readable pictures among {len(found)}, "
            f"at least {MINIMUM} are needed (JPEG, PNG, WebP or BMP)"
        )
    spare = len(readable) - sampling.calibration
    check = min(sampling.check, max(len(readable) // 3, spare))
    return Photos(tuple(readable[check:]), tuple(readable[:check]), tuple(broken))


def tensors(paths: Sequence[Path], spec: Input) -> Iterator[NDArray[Any]]:
    """Yield the input tensor of each picture, [1, ...], through the runtime's preprocessing."""
    plan = Preprocessor(spec)
    for path in paths:
        yield plan.tensor(plan.read(path))


def find(folder: Path) -> list[Path]:
    """Return the pictures of a folder, sorted. Raises UsageError when there are none."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; --calibrate takes a folder of pictures")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UsageError(f"{folder}: no pictures in it (JPEG, PNG, WebP or BMP)")
    return found


def _draw(paths: list[Path], wanted: int, tick: Tick) -> tuple[list[Path], list[Path]]:
    readable: list[Path] = []
    broken: list[Path] = []
    for path in paths:
        if len(readable) == wanted:
            break
        tick()
        try:
            read_image(path)
            readable.append(path)
        except ImageError:
            broken.append(path)
    return readable, broken
