"""Pictures for calibration and, never the same ones, for the parity check."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kedge_convert.photos.likeness import Look, is_blank, look, near_copies
from kedge_runtime.contract import Input
from kedge_runtime.errors import ImageError, UsageError
from kedge_runtime.image import read_image
from kedge_runtime.pictures import find
from kedge_runtime.preprocessing import Preprocessor

MINIMUM = 10
JURY = 20  # fewer can't tell a small gain from none
CALIBRATE = "--calibrate"  # what gives the folder

Tick = Callable[[], None]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Photos:
    """File names only: pictures are read when they are needed, so any number fits in memory.

    Passed over: `broken` ones, `blank` ones (of one colour), `repeated` ones (the pixels of another
    one). `near_copies`: how many of the check are like one of the calibration.
    `more`: pictures of the folder that weren't drawn, and weren't looked at yet, in the order of
    the draw; `digests`: the pixels of those that were.
    """

    calibration: tuple[Path, ...]
    check: tuple[Path, ...]
    broken: tuple[Path, ...] = ()
    blank: tuple[Path, ...] = ()
    repeated: tuple[Path, ...] = ()
    near_copies: int = 0
    more: tuple[Path, ...] = ()
    digests: frozenset[bytes] = field(default=frozenset(), repr=False)

    @property
    def held_out(self) -> tuple[Path, ...]:
        """A sixth of the calibration pictures, of few up to a third, so that there are JURY of
        them: weights are never fitted to them, and they tell which of two ways to quantise is the
        better.
        """
        count = len(self.calibration)
        return self.calibration[-max(1, count // 6, min(JURY, count // 3)) :]

    @property
    def fitting(self) -> tuple[Path, ...]:
        """The other calibration pictures."""
        return self.calibration[: -len(self.held_out)]

    def enlarged(self, count: int, tick: Tick = lambda: None) -> "Photos":
        """Return the same with up to `count` more pictures to check with, as usable as the first.

        `near_copies` stays that of the first ones.
        """
        drawn = _draw(self.more, count, tick, self.digests)
        check, rest = (*self.check, *drawn.looks), self.more[drawn.tried :]
        return replace(self, check=check, more=rest, digests=self.digests | drawn.digests)

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

    A third of a small folder is kept for the check. Pictures that are unreadable, blank or the same
    as another one are passed over and listed. Raises UsageError when fewer than MINIMUM are left
    (and more were asked).
    """
    found = find(folder, CALIBRATE)
    order = np.random.default_rng(sampling.seed).permutation(len(found))
    wanted = sampling.calibration + sampling.check
    ordered = [found[i] for i in order]
    drawn = _draw(ordered, wanted, tick)
    if len(drawn.looks) < min(MINIMUM, wanted):
        raise UsageError(
            f"{folder}: {len(drawn.looks)} usable pictures among {len(found)}{drawn.reasons()}, "
            f"at least {MINIMUM} are needed (JPEG, PNG, WebP or BMP)"
        )
    spare = len(drawn.looks) - sampling.calibration
    check = min(sampling.check, max(len(drawn.looks) // 3, spare))
    more = tuple(ordered[drawn.tried :])
    return replace(drawn.photos(check), more=more, digests=drawn.digests)


def tensors(paths: Sequence[Path], spec: Input) -> Iterator[NDArray[Any]]:
    """Yield the input tensor of each picture, [1, ...], through the runtime's preprocessing."""
    plan = Preprocessor(spec)
    for path in paths:
        yield plan.tensor(plan.read(path))


def ticking(items: Iterable[Item], tick: Tick) -> Iterator[Item]:
    """Yield the items; `tick` is called as soon as one was used."""
    for item in items:
        yield item
        tick()


@dataclass(frozen=True)
class _Drawn:
    """Usable pictures with their looks, and the others by what is wrong with them."""

    looks: dict[Path, Look] = field(default_factory=dict)
    others: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))

    @property
    def tried(self) -> int:
        """How many pictures were looked at."""
        return len(self.looks) + sum(map(len, self.others.values()))

    @property
    def digests(self) -> frozenset[bytes]:
        """What the usable ones' pixels are known by."""
        return frozenset(look.digest for look in self.looks.values())

    def reasons(self) -> str:
        """Return e.g. ` (2 broken, 1 blank)`."""
        counts = (f"{len(paths)} {reason}" for reason, paths in self.others.items())
        return f" ({', '.join(counts)})" if self.others else ""

    def photos(self, check: int) -> Photos:
        """Return the first `check` pictures for the check and the others for calibration."""
        paths, looks = tuple(self.looks), tuple(self.looks.values())
        broken, blank, repeated = (
            tuple(self.others.get(reason, ())) for reason in ("broken", "blank", "repeated")
        )
        copies = near_copies(looks[:check], looks[check:])
        return Photos(paths[check:], paths[:check], broken, blank, repeated, copies)


def _draw(
    paths: Sequence[Path], wanted: int, tick: Tick, known: frozenset[bytes] = frozenset()
) -> _Drawn:
    """Look at pictures until so many are usable; those of `known` pixels are repeated ones."""
    drawn, digests = _Drawn(), set(known)
    for path in paths:
        if len(drawn.looks) == wanted:
            break
        tick()
        reason, seen = _seen(path, digests)
        if seen is None:
            drawn.others[reason].append(path)
        else:
            drawn.looks[path] = seen
            digests.add(seen.digest)
    return drawn


def _seen(path: Path, digests: set[bytes]) -> tuple[str, Look | None]:
    """Return a picture's look, or why it isn't used: a field of Photos."""
    try:
        pixels = read_image(path)
    except ImageError:
        return "broken", None
    if is_blank(pixels):
        return "blank", None
    seen = look(pixels)
    return ("repeated", None) if seen.digest in digests else ("", seen)
