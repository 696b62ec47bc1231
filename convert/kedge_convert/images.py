"""Choose calibration and validation images: never the same ones, no blank ones, no near copies."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Floats, Pixels
from kedge_runtime.artefact.contract import Input
from kedge_runtime.errors import ImageError, UsageError
from kedge_runtime.image.decode import read_image
from kedge_runtime.image.folder import find_images
from kedge_runtime.image.preprocessing import Preprocessor

# Levels of 255. JPEG's own noise on one colour is below 1; the plainest of 500 photos has 23.
BLANK = 2.0
SIDE = 16
# Correlation of two thumbnails. Among 500 photos the nearest have 0.84; a photo saved again at JPEG
# quality 20, at half its size or brighter by a tenth has 0.994 and more with itself.
ALIKE = 0.99


@dataclass(frozen=True)
class Look:
    """What is remembered of a picture.

    `digest`: of its decoded pixels, whatever the file. `thumbnail`: float32 [16 * 16 * 3] of mean 0
    and norm 1.
    """

    digest: bytes
    thumbnail: Floats


def is_blank(pixels: Pixels) -> bool:
    """Whether a picture, uint8 [height, width, 3], is of one colour but for noise."""
    return bool(cv2.meanStdDev(pixels)[1].max() < BLANK)


def look(pixels: Pixels) -> Look:
    """Return the look of a picture, uint8 [height, width, 3]."""
    digest = hashlib.blake2b(f"{pixels.shape}".encode() + pixels.tobytes(), digest_size=16)
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    centred = (small - small.mean()).ravel()
    return Look(digest.digest(), centred / max(float(np.linalg.norm(centred)), 1e-6))


def near_copies(looks: Sequence[Look], others: Sequence[Look]) -> int:
    """Return how many of `looks` are like one of `others`."""
    if not looks or not others:
        return 0
    ours, theirs = (np.stack([one.thumbnail for one in group]) for group in (looks, others))
    return int((ours @ theirs.T > ALIKE).any(axis=1).sum())


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
    found = find_images(folder, CALIBRATE)
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
