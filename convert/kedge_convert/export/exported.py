"""Records of an export: its options and its result, and what the formats share to make it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.images import Tick, tensors, ticking
from kedge_convert.source import Source
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.kinds import DType, Method, Precision


@dataclass(frozen=True)
class Scheme:
    """One layout; the defaults are what every CPU runs.

    `input`, `output`: a TFLite file's I/O dtypes (`inference_input_type` of TensorFlow's
    converter); ONNX's stay float32. `per_channel_dense`: whether TFLite's dense layers have a scale
    per output, or one for all (`_experimental_disable_per_channel_quantization_for_dense_layers`).
    `per_channel`: whether int8 weights have a scale per output, or one for a whole layer.
    `reduce_range`: whether ONNX's weights keep to 7 bits, as the option of that name of
    `onnxruntime.quantization.quantize_static`.
    `input_span`: the numbers that byte 0 and byte 255 become, where they settle the range of a
    TFLite file's input instead of the calibration images.
    """

    input: DType = "int8"
    output: DType = "int8"
    per_channel_dense: bool = True
    reduce_range: bool = False
    per_channel: bool = True
    input_span: tuple[float, float] | None = None


PLAIN = Scheme()


@dataclass(frozen=True)
class ExportOptions:
    """What an export takes besides the model and its precision.

    `images`: for the ranges of integer activations; `tick` is called for each one that is used.
    `scheme`: the layout of the integers.
    """

    images: tuple[Path, ...] = ()
    scheme: Scheme = PLAIN
    tick: Tick = lambda: None

    def tensors(self, source: Source) -> Iterator[Floats]:
        """Yield the model's input for each image, [1, h, w, channels]."""
        return ticking(tensors(self.images, source.input), self.tick)


STOCK = ExportOptions()


@dataclass(frozen=True)
class Recipe:
    """How a file was made, for its provenance.

    `ranges`: the method of the activations' ranges. `float_layers`: the layers that stay float.
    `device`: whose profile chose, if any. `copied_layers`: those whose channels are written several
    times, as `conv1 x2`, or as positive and negative part, as `conv1 +-`.
    """

    precision: Precision
    method: Method = "stock"
    ranges: str = ""
    float_layers: tuple[str, ...] = ()
    device: str = ""
    copied_layers: tuple[str, ...] = ()


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
    """An unsealed model file. `notes`: a line for each difference from what the target promises."""

    content: bytes
    notes: tuple[str, ...] = ()


# For a tensor that is zero on every image: steps of no size make scales that no engine takes.
EMPTY = 1e-3


@dataclass(frozen=True)
class Range:
    """The values that a tensor's steps cover; zero lies within, as padding needs it."""

    low: float
    high: float

    @classmethod
    def over(cls, low: float, high: float) -> "Range":
        """Return the range from `low` to `high`, widened to zero, and to EMPTY if it is that."""
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        return cls(low, high if high > low else EMPTY)

    @classmethod
    def of_all(cls, values: "Iterable[tuple[str, Floats]]") -> "Ranges":
        """Return the range of all values of every name."""
        return cls.of_parts([limits(values)])

    @classmethod
    def of_parts(cls, parts: "Iterable[Limits]") -> "Ranges":
        """Return the range of all values of every name, by the limits in parts of them."""
        ends = limits((name, np.array(pair)) for part in parts for name, pair in part.items())
        return {name: cls.over(*pair) for name, pair in ends.items()}


Ranges = dict[str, Range]
Limits = dict[str, tuple[float, float]]


def limits(values: "Iterable[tuple[str, NDArray[Any]]]") -> Limits:
    """Return the least and the largest value of every name."""
    found: Limits = {}
    for name, value in values:
        low, high = found.get(name, (np.inf, -np.inf))
        found[name] = min(low, float(value.min())), max(high, float(value.max()))
    return found
