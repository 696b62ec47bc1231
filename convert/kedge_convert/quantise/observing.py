"""Observe the activations of a float file over the calibration images, in a thread a core."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from kedge_convert.export import tflite_converter
from kedge_convert.images import ImageSplit, Tick, tensors, ticking
from kedge_convert.quantise.answers import program_ranges
from kedge_convert.quantise.ranges import Histogram, Observed, See
from kedge_convert.quantise.static import STATIC
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_convert.worker.progress import Progress
from kedge_runtime.arrays import Floats
from kedge_runtime.engines.choice import cores
from kedge_runtime.engines.copies import copies


def observed(
    target: Target, source: Source, floats: bytes, images: ImageSplit, progress: Progress
) -> Observed:
    """Return the histograms of every activation of a float file over the calibration images.

    The float TFLite program is observed once for all formats; a format adds what is its own.
    """
    static = STATIC[target.format]
    names = static.tensors(source, floats)
    with progress.stage(f"observe {target}", len(images.calibration)) as tick:
        shared = _of_program(source, images, tick).named(names) if names else Observed({})
        own = partial(static.observe, floats, known=names)
        shares = _shares(images.calibration, source, copies(len(floats), cores()))
        return shared | Observed(_histograms(own, shares))


# By the Keras model, for as long as that lives.
_SEEN: WeakKeyDictionary[Any, Observed] = WeakKeyDictionary()


def _of_program(source: Source, images: ImageSplit, tick: Tick) -> Observed:
    """Observe the float TFLite program of a source, once."""
    if source.model not in _SEEN:
        static = STATIC["tflite"]
        content = static.floats(source)
        shares = _shares(images.calibration, source, copies(len(content), cores()), tick)
        seen = Observed(_histograms(partial(static.observe, content), shares))
        ends = seen.ranges("minmax")
        tflite_converter.remember(source, images.calibration, ends)
        answers = program_ranges(source, content, images, ends)
        _SEEN[source.model] = seen | Observed({}, answers)
    return _SEEN[source.model]


def _shares(
    paths: Sequence[Path], source: Source, count: int, tick: Tick = lambda: None
) -> list[Iterator[Floats]]:
    """Return the images as up to `count` iterators, each for a thread."""
    lock = Lock()

    def locked() -> None:
        with lock:
            tick()

    shares = filter(None, (paths[i::count] for i in range(count)))
    return [ticking(tensors(each, source.input), locked) for each in shares]


def _histograms(
    observe: Callable[[Iterable[Floats], See], None], shares: Sequence[Iterable[Floats]]
) -> dict[str, Histogram]:
    """Return the histogram of every activation that is observed, over the images of all shares."""

    def seen(images: Iterable[Floats]) -> dict[str, Histogram]:
        histograms: dict[str, Histogram] = defaultdict(Histogram)
        observe(images, lambda name, x: histograms[name].add(x))
        return histograms

    with ThreadPoolExecutor(max(1, len(shares)), thread_name_prefix="kedge-ranges") as threads:
        found, *others = threads.map(seen, shares or [()])
    for other in others:
        found = {name: one.plus(other[name]) for name, one in found.items()}
    return found
