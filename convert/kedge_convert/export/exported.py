"""Records of an export: what it takes and gives, and what the formats share to make it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from kedge_convert.images import Tick
from kedge_convert.source import Source
from kedge_runtime.artefact.contract import DType, Method, Precision


@dataclass(frozen=True)
class Scheme:
    """One layout; the defaults are what every CPU runs.

    `input`, `output`: the types of a TFLite file's ends (`inference_input_type` of TensorFlow's
    converter); ONNX's stay float32. `per_channel_dense`: whether TFLite's dense layers have a scale
    per output, or one for all (`_experimental_disable_per_channel_quantization_for_dense_layers`).
    `reduce_range`: whether ONNX's weights keep to 7 bits, as the option of that name of
    `onnxruntime.quantization.quantize_static`.
    """

    input: DType = "int8"
    output: DType = "int8"
    per_channel_dense: bool = True
    reduce_range: bool = False


PLAIN = Scheme()


@dataclass(frozen=True)
class Way:
    """What goes into the provenance, see there. `device`: whose profile chose, if any."""

    precision: Precision
    method: Method = "stock"
    ranges: str = ""
    kept: tuple[str, ...] = ()
    device: str = ""


# IEEE 754 binary16: rounding moves a normal number by at most this share.
ROUNDING = 2.0**-11


def half(kernel: NDArray[np.float32]) -> NDArray[np.float16] | None:
    """Return a kernel as float16, or None where its numbers are too large or too small for it."""
    with np.errstate(over="ignore"):
        rounded = kernel.astype(np.float16)
    moved = np.linalg.norm((rounded.astype(np.float64) - kernel).ravel())
    # Written so that an infinity fails.
    return rounded if moved <= ROUNDING * np.linalg.norm(kernel.ravel()) else None


@dataclass(frozen=True)
class Exported:
    """An unsealed model file. `notes`: a line each for what isn't as the target's name says."""

    content: bytes
    notes: tuple[str, ...] = ()


Recipe = Callable[[Source, Sequence[Path], Tick, Scheme], Exported]


def once(make: Callable[[Source], bytes]) -> Callable[[Source], bytes]:
    """Remember what `make` gave for a source's model, for as long as that model lives."""
    made: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()

    @wraps(make)
    def remembered(source: Source) -> bytes:
        if source.model not in made:
            made[source.model] = make(source)
        return made[source.model]

    return remembered
