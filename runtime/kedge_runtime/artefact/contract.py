"""Define the contract: everything that a device needs to run an artefact as it was verified.

It is stored inside the artefact as JSON. Converter, parity check and device build their
preprocessing and decoding from this one record, so no fact about a model is kept in two places.
"""

import json
from math import isfinite
from typing import Any

from kedge_runtime.artefact.confidence import Confidence, SecondRule
from kedge_runtime.artefact.kinds import (
    PILLOW_FITS,
    Activation,
    Colour,
    DType,
    Fit,
    Kind,
    Layout,
    Orientation,
    Resize,
)
from kedge_runtime.artefact.provenance import FOREIGN, Provenance
from kedge_runtime.errors import ContractError, counted
from kedge_runtime.frozen import dataclass
from kedge_runtime.printable import is_printable, printable
from kedge_runtime.records import decode, encode, shown

# 2: grey images, Pillow's and Keras's own geometries, the name of the pipeline.
SCHEMA = 2
# 3: what labelled images said of the answers (`Confidence`), the validation images' marks, and the
# layers of copied channels.
WITH_CONFIDENCE = 3
READABLE = (1, 2, WITH_CONFIDENCE)
MAX_JSON = 4 << 20  # bytes; 1000 labels take 50 KiB, and JSON grows twentyfold when it is read


@dataclass(frozen=True)
class Geometry:
    """How an image of any size is scaled to `height` x `width` pixels.

    `resize`: `nearest` is Pillow's and Keras's default; `bilinear` samples four pixels; `pyramid`
    halves first, so that big images don't alias; `area` averages; `tf_bilinear` is TensorFlow's
    bilinear, with finer weights; `pillow_*` are Pillow's filters, which use every source pixel.
    `fit`: `crop` scales until the centre `crop_fraction` covers the target, then cuts it out;
    `torchvision_crop` does so with torchvision's roundings (with a Pillow filter only); `stretch`
    ignores the aspect ratio; `letterbox` keeps it and pads; `keras_crop` cuts the largest centre of
    the target's aspect ratio out first, in whole pixels, as Keras's `smart_resize`; `pillow_fit`
    does so in fractions of pixels, as Pillow's `ImageOps.fit` (with a Pillow filter only).
    `orientation`: whether EXIF is applied (`exif`) or ignored, as Keras does.
    `scaled_decode`: whether a big JPEG may be decoded at a half, a quarter or an eighth of its size
    if that is not below the size to resize to; `nearest` never uses it.
    """

    height: int
    width: int
    resize: Resize = "pyramid"
    fit: Fit = "crop"
    crop_fraction: float = 0.875
    orientation: Orientation = "exif"
    scaled_decode: bool = True

    def __post_init__(self) -> None:
        """Refuse impossible sizes and fractions."""
        if not (0 < self.height <= 8192 and 0 < self.width <= 8192):
            size = f"{self.height}x{self.width}"
            raise ContractError(f"input size is {size}, allowed are 1x1 to 8192x8192")
        if not 0.1 <= self.crop_fraction <= 1:
            raise ContractError(f"crop_fraction is {self.crop_fraction}, allowed are 0.1 to 1")
        if self.fit in PILLOW_FITS and not self.resize.startswith("pillow"):
            raise ContractError(f"fit {self.fit} needs a pillow filter, not {self.resize}")


@dataclass(frozen=True)
class Normalisation:
    """How a byte, 0..255, becomes the network's number: (byte / divisor - mean) / std.

    `mean` and `std`: one number per channel, in the order of `colour`. `grey` images have one
    channel, Pillow's `convert("L")`. `kedge_runtime.image.pipelines` defines the modes of
    keras.applications as instances of it.
    """

    colour: Colour = "rgb"
    divisor: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse divisors that are not positive, and numbers for another count of channels."""
        if not all(0 < value < float("inf") for value in (self.divisor, *self.std)):
            raise ContractError(f"divisor {self.divisor} and std {self.std} must be positive")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not all(map(isfinite, values)):
                raise ContractError(f"{name} {values} must be finite numbers")
            if self.channels == 1 and len(values) == 3 and len(set(values)) == 1:
                values = values[:1]  # a mode of three channels that treats them alike
                object.__setattr__(self, name, values)
            if len(values) != self.channels:
                channels = counted(self.channels, "channel")
                raise ContractError(f"{name} is {values}: {self.colour} images have {channels}")

    @property
    def channels(self) -> int:
        """The number of channels: 1 for grey images, else 3."""
        return 1 if self.colour == "grey" else 3


@dataclass(frozen=True)
class Quantisation:
    """Affine quantisation: real = scale * (integer - zero_point)."""

    scale: float
    zero_point: int = 0

    def __post_init__(self) -> None:
        """Refuse a scale that is not positive and finite."""
        if not 0 < self.scale < float("inf"):
            raise ContractError(f"quantisation scale is {self.scale}, it must be positive")


@dataclass(frozen=True)
class Tensor:
    """The engine's input or output tensor; `layout` matters for images only.

    `nhw` (no channel axis) and `flat` ([n, h * w]) are grey.
    """

    dtype: DType = "float32"
    quantisation: Quantisation | None = None
    layout: Layout = "nhwc"

    def __post_init__(self) -> None:
        """Refuse integers without a quantisation, and floats with one."""
        if "int" in self.dtype and self.quantisation is None:
            raise ContractError(f"a tensor of {self.dtype} needs a quantisation")
        if "int" not in self.dtype and self.quantisation is not None:
            raise ContractError(
                f"a tensor of {self.dtype} takes no quantisation: leave it out, or state the "
                "integer dtype"
            )


@dataclass(frozen=True)
class Input:
    """How a decoded image becomes the engine's input.

    `pipeline`: the training pipeline that it reproduces (`image/pipelines.py`), or empty.
    """

    geometry: Geometry
    normalisation: Normalisation
    tensor: Tensor = Tensor()
    pipeline: str = ""

    def __post_init__(self) -> None:
        """Refuse colours where the tensor has no channel axis."""
        if self.tensor.layout in ("nhw", "flat") and self.normalisation.channels != 1:
            raise ContractError(
                f"layout {self.tensor.layout} has one channel, the colour is "
                f"{self.normalisation.colour}: state the colour grey"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the engine's input for one image."""
        height, width = self.geometry.height, self.geometry.width
        channels = self.normalisation.channels
        shapes: dict[Layout, tuple[int, ...]] = {
            "nhwc": (1, height, width, channels),
            "nchw": (1, channels, height, width),
            "nhw": (1, height, width),
            "flat": (1, height * width),
        }
        return shapes[self.tensor.layout]


@dataclass(frozen=True)
class Output:
    """What the engine's outputs mean.

    `kind`: what they are already; so softmax is never applied twice.
    `activation`: turns logits into probabilities; it is not applied to any other kind.
    `temperature`: divides logits before the activation (Guo et al. 2017, arXiv:1706.04599);
    probabilities of a softmax are raised to its inverse, which is the same.
    `thresholds`: for independent classes (sigmoid), the probability, 0..1, from which a class is
    predicted; none means .5, one is for all classes, else one per label.
    `label_offset` is the number of outputs before the first label's: 1 where output 0 is the
    background, as in TensorFlow's 1001-class ImageNet models.
    """

    kind: Kind = "logits"
    tensor: Tensor = Tensor()
    activation: Activation = "softmax"
    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()
    label_offset: int = 0

    def __post_init__(self) -> None:
        """Refuse a temperature that is not positive, and values out of range."""
        if not 0 < self.temperature < float("inf"):
            raise ContractError(f"temperature is {self.temperature}, it must be positive")
        if not all(0 <= value <= 1 for value in self.thresholds):
            raise ContractError(f"thresholds are {self.thresholds}, allowed are 0 to 1")
        if self.label_offset not in (0, 1):
            raise ContractError(f"label_offset is {self.label_offset}, allowed are 0 and 1")

    @property
    def multi_label(self) -> bool:
        """Whether each class has its own probability, so that several can be right."""
        return (self.activation if self.kind == "logits" else self.kind) == "sigmoid"


@dataclass(frozen=True)
class Label:
    """A class; `id`: its synset (ImageNet) or any stable key; `name`: for people."""

    id: str
    name: str

    def __post_init__(self) -> None:
        """Refuse characters that act on a terminal or in a log, such as newlines."""
        for text in (self.id, self.name):
            if not is_printable(text):
                raise ContractError(
                    f"label {printable(text, 80)}: labels have no control characters, newlines, "
                    "tabs, bidi marks and bytes that are not UTF-8: remove them"
                )

    @classmethod
    def of_many(cls, items: list[Any]) -> "tuple[Label, ...] | None":
        """Return the labels of plain data, checked all at once; None where one may be wrong.

        A thousand labels checked one by one take as long as the engine takes to open.
        """
        try:
            texts = [text for item in items for text in (item["id"], item["name"])]
            right = "".join(texts).isprintable() and set(map(len, items)) <= {2}
        except (KeyError, TypeError):
            return None
        return tuple(map(cls._checked, items)) if right else None

    @classmethod
    def _checked(cls, item: dict[str, str]) -> "Label":
        label = cls.__new__(cls)
        vars(label).update(item)
        return label


@dataclass(frozen=True)
class Contract:
    """The contract of an artefact.

    For a foreign file the user may leave out the tensors (the engine states them), the labels (the
    classes are numbered) and the provenance.

    Attributes:
        input: The size of the image, its geometry and normalisation, and the input tensor.
        output: The output's kind, its thresholds, and the output tensor.
        labels: One entry per class, in the order of the output.
        provenance: Where the artefact comes from.
        schema: The version of the contract's schema.
        confidence: What labelled images said of the probabilities (`kedge calibrate`).
        second: When a better artefact is asked again (`kedge calibrate --second`).
    """

    input: Input
    output: Output
    labels: tuple[Label, ...] = ()
    provenance: Provenance = FOREIGN
    schema: int = SCHEMA
    confidence: Confidence | None = None
    second: SecondRule | None = None

    def __post_init__(self) -> None:
        """State the schema that the fields need."""
        origin = self.provenance
        if self.confidence or self.second or origin.validation_images or origin.copied:
            object.__setattr__(self, "schema", max(self.schema, WITH_CONFIDENCE))

    def to_json(self) -> str:
        """Return the contract as JSON.

        Returns:
            JSON with sorted keys. The same contract gives the same bytes.
        """
        data = encode(self)
        # Omitted where unset: files without them keep their bytes, and older devices read them.
        for name in ("validation_images", "copied"):
            if not data["provenance"][name]:
                del data["provenance"][name]
        for name in ("confidence", "second"):
            if data[name] is None:
                del data[name]
        return json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Contract":
        """Read and check a contract.

        Args:
            text: JSON, at most 4 MiB.

        Returns:
            The contract.

        Raises:
            ContractError: A key is missing or wrong; the message names it.
        """
        if not isinstance(text, str | bytes):
            raise ContractError(f"the contract is {shown(text)}, expected JSON as str or bytes")
        if len(text) > MAX_JSON:
            raise ContractError(f"the contract has {len(text)} bytes, allowed are {MAX_JSON}")
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ContractError(f"the contract is no JSON: {error}") from None
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema not in READABLE:
            known = ", ".join(map(str, READABLE))
            raise ContractError(
                f"the contract has schema {schema!r}, this kedge reads {known}: "
                "install the kedge that made the artefact, or convert again"
            )
        return decode(cls, data, "contract")
