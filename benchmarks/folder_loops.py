"""Loop over the photos of a folder: a plain script, the same in a process a core, and kedge."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.classify.arguments import CallOptions
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.engines.choice import EngineOptions, cores
from kedge_runtime.image.ahead import answered

Way = Callable[[list[Path]], None]


def clocked(way: Way, images: list[Path]) -> tuple[float, float]:
    """Return images a second, and milliseconds of CPU for each image."""
    wall, cpu = perf_counter(), process_time()
    way(images)
    return len(images) / (perf_counter() - wall), 1e3 * (process_time() - cpu) / len(images)


def facts(contract: Contract) -> list[float]:
    """Return the size, the size before the crop, divisor, mean, scale and zero point."""
    geometry, normalisation = contract.input.geometry, contract.input.normalisation
    quantisation = contract.input.tensor.quantisation
    assert quantisation, "give an int8 artefact"
    return [
        geometry.height,
        round(geometry.height / geometry.crop_fraction),
        normalisation.divisor,
        normalisation.mean[0],
        quantisation.scale,
        quantisation.zero_point,
    ]


def naive(artefact: Path, threads: int = cores()) -> Way:
    """Return the loop of a plain script."""
    interpreter = Interpreter(str(artefact), num_threads=threads)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    divisor, mean, scale, zero = facts(read_artefact(artefact).contract)[2:]
    byte = (np.arange(256, dtype=np.float32) / divisor - mean) / scale
    table = np.clip(np.rint(byte) + zero, -128, 127).astype(np.int8)
    size = int(taken["shape"][1])

    def loop(images: list[Path]) -> None:
        for path in images:
            pixels: NDArray[Any] = cv2.resize(cv2.imread(str(path)), (size, size))  # type: ignore[arg-type]
            tensor = cv2.LUT(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), table)[None]
            interpreter.set_tensor(taken["index"], tensor)
            interpreter.invoke()
            interpreter.get_tensor(given["index"])[0].argmax()

    return loop


@contextmanager
def processes(artefact: Path) -> Iterator[Way]:
    """Yield the loops of a plain script in a process for each core, of one thread each."""
    with ProcessPoolExecutor(cores(), get_context("spawn")) as pool:

        def loops(images: list[Path]) -> None:
            shares = [images[i :: cores()] for i in range(cores())]
            list(pool.map(_looped, [artefact] * len(shares), shares))

        yield loops


def _looped(artefact: Path, images: list[Path]) -> None:
    _single(artefact)(images)


# A process opens its engine once.
@lru_cache
def _single(artefact: Path) -> Way:
    cv2.setNumThreads(1)
    return naive(artefact, 1)


def ours(artefact: Path) -> Way:
    """Return the loop of `kedge classify` over a folder, without its printing."""
    options, call = EngineOptions(copies=True), CallOptions()
    classifier = Classifier.of(read_content(artefact), options)

    def loop(images: list[Path]) -> None:
        with answered(lambda path: classifier.prepared_result(path, call), images) as answers:
            for _, answer in answers:
                answer()

    return loop
