"""Choose calibration and validation images: disjoint, none blank, none repeated."""

import hashlib
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from kedge_convert.sampling import Sampling
from kedge_runtime.arrays import Floats, Pixels
from kedge_runtime.artefact.contract import Geometry, Input
from kedge_runtime.artefact.provenance import calibration_mark
from kedge_runtime.errors import ImageError, UsageError
from kedge_runtime.files import sha256_of_file
from kedge_runtime.image.ahead import ahead
from kedge_runtime.image.decode import read_image
from kedge_runtime.image.folder import find_images
from kedge_runtime.image.geometry import reduction
from kedge_runtime.image.preprocessing import Preprocessor

# Levels of 255. JPEG's own noise on one colour is below 1; the plainest of 500 photos has 23.
BLANK = 2.0
SIDE = 16
# Correlation of two thumbnails. Among 500 photos the nearest have 0.84; a photo saved again at JPEG
# quality 20, at half its size or brighter by a tenth has 0.994 and more with itself.
ALIKE = 0.99


@dataclass(frozen=True)
class Look:
    """The features of an image by which copies of it are found.

    `digest`: of its decoded pixels, whatever the file. `thumbnail`: float32 [16 * 16 * 3] of mean 0
    and norm 1.
    """

    digest: bytes
    thumbnail: Floats


def is_blank(pixels: Pixels) -> bool:
    """Whether an image, uint8 [height, width, 3], is of one colour but for noise."""
    return bool(cv2.meanStdDev(pixels)[1].max() < BLANK)


def look(pixels: Pixels) -> Look:
    """Return the look of an image, uint8 [height, width, 3]."""
    digest = hashlib.blake2b(f"{pixels.shape}".encode() + pixels.tobytes(), digest_size=16)
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    centred = (small - small.mean()).ravel()
    return Look(digest.digest(), centred / max(float(np.linalg.norm(centred)), 1e-6))


def near_copies(looks: Sequence[Look], others: Sequence[Look]) -> int:
    """Count the `looks` that are nearly copies of one of `others`."""
    if not looks or not others:
        return 0
    ours, theirs = (np.stack([one.thumbnail for one in group]) for group in (looks, others))
    return int((ours @ theirs.T > ALIKE).any(axis=1).sum())


MINIMUM = 10
SELECTION = 20  # fewer can't tell a small gain from none
CALIBRATE = "--calibrate"  # the folder's option
SYNTHETIC = "synthetic"  # its value for images that are made from the model

Tick = Callable[[], None]
Item = TypeVar("Item")


@dataclass(frozen=True)
class ImageSplit:
    """Paths of calibration and validation images. They are read when needed: any number fits.

    Skipped: `broken` ones, `blank` ones (of one colour), `repeated` ones (the pixels of another
    one). `near_copies`: the number of validation images that resemble a calibration image.
    `more`: images of the folder that were not drawn or read yet, in the order of the draw;
    `digests`: of the pixels of those that were.
    """

    calibration: tuple[Path, ...]
    validation: tuple[Path, ...]
    broken: tuple[Path, ...] = ()
    blank: tuple[Path, ...] = ()
    repeated: tuple[Path, ...] = ()
    near_copies: int = 0
    more: tuple[Path, ...] = ()
    digests: frozenset[bytes] = field(default=frozenset(), repr=False)

    @property
    def selection(self) -> tuple[Path, ...]:
        """The calibration images that select the better candidate: no weights are fitted to them.

        A sixth of all; of few images up to a third, so that there are SELECTION of them.
        """
        count = len(self.calibration)
        return self.calibration[-max(1, count // 6, min(SELECTION, count // 3)) :]

    @property
    def preparation(self) -> tuple[Path, ...]:
        """The other calibration images, to which weights are fitted."""
        return self.calibration[: -len(self.selection)]

    def enlarged(self, count: int, tick: Tick = lambda: None) -> "ImageSplit":
        """Return the split with up to `count` more validation images, as usable as the first.

        `near_copies` stays that of the first ones.
        """
        drawn = _draw(self.more, count, tick, self.digests)
        validation, rest = (*self.validation, *drawn.looks), self.more[drawn.tried :]
        return replace(self, validation=validation, more=rest, digests=self.digests | drawn.digests)

    def calibration_digest(self) -> str:
        """Return the SHA-256 of the calibration files' contents, in order."""
        digest = hashlib.sha256(b"".join(self._digests())).hexdigest()
        return f"sha256:{digest}"

    def calibration_marks(self) -> tuple[str, ...]:
        """Return the marks of the calibration files' contents, sorted."""
        return tuple(sorted(marks_of(self.calibration)))

    def _digests(self) -> list[bytes]:
        return _digests(tuple(path.absolute() for path in self.calibration))


def marks_of(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the marks of files' contents, in order."""
    return tuple(map(calibration_mark, _digests(tuple(path.absolute() for path in paths))))


# Every artefact and every candidate states them: the files of the images that calibrate, validate
# and fit a confidence are read once.
@lru_cache(maxsize=4)
def _digests(paths: tuple[Path, ...]) -> list[bytes]:
    return [bytes.fromhex(sha256_of_file(path)) for path in paths]


def collect(
    folder: Path, sampling: Sampling, tick: Tick = lambda: None, spec: Input | None = None
) -> ImageSplit:
    """Draw calibration and validation images from a folder, at any depth, without overlap.

    `spec`: keep them at the size of this input. A third of a small folder goes to validation.
    Images that are unreadable, blank or the same as another one are skipped and listed. Raises
    UsageError when fewer than MINIMUM are left (and more were asked).
    """
    paths = find_images(folder, CALIBRATE)
    order = np.random.default_rng(sampling.seed).permutation(len(paths))
    count = sampling.calibration + sampling.check
    ordered = [paths[i] for i in order]
    drawn = _draw(ordered, count, tick, spec=spec)
    if len(drawn.looks) < min(MINIMUM, count):
        raise UsageError(
            f"{folder}: {len(drawn.looks)} usable images among {len(paths)}{drawn.reasons()}, at "
            f"least {MINIMUM} are needed (JPEG, PNG, WebP or BMP)"
        )
    spare = len(drawn.looks) - sampling.calibration
    validation = min(sampling.check, max(len(drawn.looks) // 3, spare))
    more = tuple(ordered[drawn.tried :])
    return replace(drawn.split(validation), more=more, digests=drawn.digests)


FITTED_MEMORY = 256 << 20  # bytes: all images of a conversion, mostly


class FittedImages:
    """Images at a network's size, uint8 [h, w, 3]: a conversion looks at each up to ten times.

    The oldest ones go when they take more than `memory` bytes. Threads may share it.
    """

    def __init__(self, memory: int) -> None:
        """Start with none."""
        self._memory, self._bytes = memory, 0
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[object, ...], Pixels] = OrderedDict()

    def of(self, path: Path, plan: Preprocessor) -> Pixels:
        """Return an image as `plan` fits it. Raises ImageError."""
        try:
            key = _key(path, plan)
        except OSError:  # reading it says so
            return plan.fit(plan.read(path))
        with self._lock:
            held = self._held.get(key)
        if held is None:
            held = plan.fit(plan.read(path)).copy()  # not a part of a larger one
            self._put(key, held)
        return held

    def keep(self, path: Path, plan: Preprocessor, pixels: Pixels) -> None:
        """Keep an image whose pixels, RGB uint8 [h, w, 3], were read at full size by EXIF."""
        geometry = plan.spec.geometry
        if geometry.orientation == "exif" and reduction(geometry, *pixels.shape[:2]) == 1:
            with suppress(OSError):
                self._put(_key(path, plan), plan.fit(pixels).copy())

    def only(self, geometry: Geometry) -> None:
        """Forget the images of all other geometries."""
        with self._lock:
            for key in [key for key in self._held if geometry not in key]:
                self._bytes -= self._held.pop(key).nbytes

    def _put(self, key: tuple[object, ...], pixels: Pixels) -> None:
        pixels.flags.writeable = False
        with self._lock:
            if key in self._held:  # another thread was faster
                return
            self._held[key] = pixels
            self._bytes += pixels.nbytes
            while self._bytes > self._memory and len(self._held) > 1:
                self._bytes -= self._held.popitem(last=False)[1].nbytes


def _key(path: Path, plan: Preprocessor) -> tuple[object, ...]:
    state, geometry = path.stat(), plan.spec.geometry
    grey = plan.spec.normalisation.colour == "grey"
    return path.absolute(), state.st_mtime_ns, state.st_size, geometry, grey


_FITTED = FittedImages(FITTED_MEMORY)


def fitted(paths: Sequence[Path], spec: Input) -> Iterator[Pixels]:
    """Yield each image at the network's size, RGB uint8 [h, w, 3]."""
    plan = Preprocessor(spec)
    for path in paths:
        yield _FITTED.of(path, plan)


def forget_others(spec: Input) -> None:
    """Forget the images that were kept for another input than `spec`."""
    _FITTED.only(spec.geometry)


def readable(paths: Sequence[Path], spec: Input) -> Iterator[Path]:
    """Yield the images that can be read, and keep them at the network's size."""
    with ahead(partial(_FITTED.of, plan=Preprocessor(spec)), paths) as prepared:
        for path, pixels in prepared:
            with suppress(ImageError):
                pixels()
                yield path


def tensors(paths: Sequence[Path], spec: Input) -> Iterator[NDArray[Any]]:
    """Yield the input tensor of each image, [1, ...], through the runtime's preprocessing."""
    plan = Preprocessor(spec)
    with ahead(lambda path: plan.look_up(_FITTED.of(path, plan)), paths) as prepared:
        for _, tensor in prepared:
            yield tensor()


def ticking(items: Iterable[Item], tick: Tick) -> Iterator[Item]:
    """Yield the items; call `tick` after each one is used."""
    for item in items:
        yield item
        tick()


@dataclass(frozen=True)
class _Drawn:
    """Usable images with their looks, and the others by their fault."""

    looks: dict[Path, Look] = field(default_factory=dict)
    others: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))

    @property
    def tried(self) -> int:
        """The number of images that were read."""
        return len(self.looks) + sum(map(len, self.others.values()))

    @property
    def digests(self) -> frozenset[bytes]:
        """The digests of the usable images' pixels."""
        return frozenset(look.digest for look in self.looks.values())

    def reasons(self) -> str:
        """Return e.g. ` (2 broken, 1 blank)`."""
        counts = (f"{len(paths)} {reason}" for reason, paths in self.others.items())
        return f" ({', '.join(counts)})" if self.others else ""

    def split(self, validation: int) -> ImageSplit:
        """Return the first `validation` images for validation, the others for calibration."""
        paths, looks = tuple(self.looks), tuple(self.looks.values())
        broken, blank, repeated = (
            tuple(self.others.get(reason, ())) for reason in ("broken", "blank", "repeated")
        )
        copies = near_copies(looks[:validation], looks[validation:])
        return ImageSplit(paths[validation:], paths[:validation], broken, blank, repeated, copies)


def _draw(
    paths: Sequence[Path],
    count: int,
    tick: Tick,
    known: frozenset[bytes] = frozenset(),
    spec: Input | None = None,
) -> _Drawn:
    """Read images until `count` are usable; those with `known` digests are repeated ones."""
    drawn, digests = _Drawn(), set(known)
    with ahead(partial(_seen, plan=Preprocessor(spec) if spec else None), paths) as seen:
        for path, result in seen:
            if len(drawn.looks) == count:
                break
            one = result()
            if isinstance(one, Look) and one.digest not in digests:
                drawn.looks[path] = one
                digests.add(one.digest)
                tick()
            else:
                drawn.others["repeated" if isinstance(one, Look) else one].append(path)
    for _ in range(min(count, len(paths)) - len(drawn.looks)):
        tick()  # others were skipped, and none is left
    return drawn


def _seen(path: Path, plan: Preprocessor | None) -> Look | str:
    """Return an image's look, or its fault: a field of ImageSplit. Keep it as `plan` fits it."""
    try:
        pixels = read_image(path)
    except ImageError:
        return "broken"
    if is_blank(pixels):
        return "blank"
    if plan is not None:
        _FITTED.keep(path, plan, pixels)
    return look(pixels)
