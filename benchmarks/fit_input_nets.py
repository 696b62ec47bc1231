"""Small nets of known pipelines for `fit_input.py`: rendered images, and a net trained on them.

Every pipeline is somebody else's code (Keras, TensorFlow, PIL, OpenCV), as people write it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kedge_convert.toolkit import require

SIDE = 40
BATCH = 32
PATTERNS = ("rings", "stripes", "checks", "bars")
TINTS = {"red": 8.0, "green": 62.0}  # OpenCV's hue, 0 to 180
NAMES = tuple(sorted(f"{tint}_{pattern}" for tint in TINTS for pattern in PATTERNS))
CAFFE = np.array([103.939, 116.779, 123.68], np.float32)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def render(index: int, rng: np.random.Generator) -> Pixels:
    """Render an image of class `index`: BGR, uint8, 90 to 260 pixels a side.

    The class is a pattern, whose fine lines a resize method may alias, and a tint.
    """
    height, width = (int(side) for side in rng.integers(90, 260, size=2))
    tint, pattern = NAMES[index].split("_")
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    period = rng.uniform(2.5, 12) * min(height, width) / SIDE
    wave = _wave(pattern, x - rng.uniform(0, width), y - rng.uniform(0, height), period, rng)
    share = np.clip(0.5 + wave * rng.uniform(0.4, 1.5), 0, 1)[..., None]
    hues = rng.normal(TINTS[tint], 24, 2) % 180
    ground, ink = (_bgr(hue, rng) for hue in hues)
    image = ground * (1 - share) + ink * share
    image *= rng.uniform(0.6, 1.1)
    image += rng.normal(0, rng.uniform(2, 14), image.shape)
    return image.clip(0, 255).astype(np.uint8)


def _wave(pattern: str, x: Floats, y: Floats, period: float, rng: np.random.Generator) -> Floats:
    turn = rng.uniform(-0.35, 0.35) + (np.pi / 2 if pattern == "bars" else 0)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    radius = np.hypot(along, across)
    waves = {
        "rings": lambda: np.sin(2 * np.pi * radius / period),
        "stripes": lambda: np.sin(2 * np.pi * along / period),
        "bars": lambda: np.sin(2 * np.pi * along / period),
        "checks": lambda: np.sin(2 * np.pi * along / period) * np.sin(2 * np.pi * across / period),
    }
    return np.asarray(waves[pattern](), np.float32)


def _bgr(hue: float, rng: np.random.Generator) -> Floats:
    hsv = np.array([[[hue, rng.uniform(60, 220), rng.uniform(60, 255)]]]).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)


def write(folder: Path, count: int, seed: int) -> list[Path]:
    """Write `count` JPEGs in a folder for each class; return the paths, class by class in turn."""
    rng = np.random.default_rng(seed)
    paths = []
    for position in range(count):
        index = position % len(NAMES)
        path = folder / NAMES[index] / f"{position:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), render(index, rng), [cv2.IMWRITE_JPEG_QUALITY, 92])
        paths.append(path)
    return paths


def _load_img(path: Path, colour: str = "rgb") -> Floats:
    mode = "grayscale" if colour == "grey" else "rgb"
    utils = require("keras").utils
    given = utils.load_img(path, target_size=(SIDE, SIDE), color_mode=mode)
    return np.asarray(utils.img_to_array(given), np.float32)


def _tf_resize(path: Path, colour: str = "rgb") -> Floats:
    tf = require("tensorflow")
    pixels = tf.io.decode_jpeg(path.read_bytes(), channels=1 if colour == "grey" else 3)
    return np.asarray(tf.image.resize(pixels, (SIDE, SIDE)), np.float32)


def _torchvision(path: Path, colour: str = "rgb") -> Floats:
    image = Image.open(path).convert("RGB")
    short = int(SIDE / 0.875)
    scale = short / min(image.size)
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.BILINEAR)
    left, top = round((image.width - SIDE) / 2), round((image.height - SIDE) / 2)
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), np.float32)


def _teachable_machine(path: Path, colour: str = "rgb") -> Floats:
    image = Image.open(path).convert("RGB")
    return np.asarray(ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.LANCZOS), np.float32)


def _pillow(path: Path, colour: str = "rgb") -> Floats:
    image = Image.open(path).convert("L" if colour == "grey" else "RGB").resize((SIDE, SIDE))
    return np.asarray(image, np.float32).reshape(SIDE, SIDE, -1)


def _opencv(path: Path, colour: str = "rgb") -> Floats:
    pixels = np.asarray(cv2.imread(str(path)))
    return np.asarray(cv2.resize(pixels, (SIDE, SIDE)), np.float32)[..., ::-1]


PIPELINES: dict[str, Callable[..., Floats]] = {
    "load_img": _load_img,
    "flow_from_directory": _load_img,
    "image_dataset": _tf_resize,
    "tf_resize": _tf_resize,
    "tf_hub": _tf_resize,
    "torchvision": _torchvision,
    "teachable_machine": _teachable_machine,
    "pillow": _pillow,
    "opencv": _opencv,
}


def normalised(pixels: Floats, name: str, colour: str) -> Floats:
    """Return RGB or grey pixels, 0 to 255, as a training script would feed them."""
    ordered = pixels[..., ::-1] if colour == "bgr" else pixels
    if name == "caffe":
        return ordered - (CAFFE if colour == "bgr" else CAFFE[::-1])
    if name == "torch":
        reverse = slice(None, None, -1 if colour == "bgr" else 1)
        return np.asarray((ordered / 255 - MEAN[reverse]) / STD[reverse], np.float32)
    factors = {"unit": ordered / 255, "tf": ordered / 127.5 - 1, "raw": ordered}
    return np.asarray(factors[name], np.float32)


@dataclass(frozen=True)
class Pair:
    """A net and how it is fed. `body`: conv, bn or first (a batch norm before all else);
    `inside`: a Rescaling's scale and offset in the model; `epochs`: of training.
    """

    pipeline: str
    normalisation: str
    colour: str = "rgb"
    body: str = "bn"
    inside: tuple[float, float] | None = None
    augmented: bool = False
    head: str = "softmax"

    @property
    def name(self) -> str:
        """The pair in a word."""
        return f"{self.pipeline}-{self.normalisation}-{self.colour}-{self.body}"


PAIRS = (
    Pair("load_img", "unit", body="conv"),
    Pair("image_dataset", "unit"),
    Pair("opencv", "unit", "bgr"),
    Pair("opencv", "tf", "bgr", body="conv"),
    Pair("teachable_machine", "tf"),
    Pair("tf_resize", "tf", augmented=True),
    Pair("torchvision", "torch"),
    Pair("image_dataset", "torch", body="conv"),
    Pair("load_img", "caffe", "bgr"),
    Pair("image_dataset", "raw", inside=(1 / 255, 0.0), body="conv", augmented=True),
    Pair("flow_from_directory", "raw", inside=(1 / 127.5, -1.0)),
    Pair("pillow", "raw"),
    Pair("opencv", "raw", "bgr", body="first"),
    Pair("tf_hub", "unit", head="logits"),
    Pair("pillow", "unit", body="first", head="sigmoid"),
    Pair("load_img", "unit", "grey"),
    Pair("pillow", "tf", "grey", body="conv"),
    Pair("load_img", "tf", body="first"),
    Pair("tf_resize", "torch", augmented=True, head="logits"),
)


def train(pair: Pair, paths: list[Path], seed: int, epochs: int = 16) -> Any:
    """Return a net trained on images of its pipeline."""
    keras = require("keras")
    keras.utils.set_random_seed(seed)
    x = np.stack([PIPELINES[pair.pipeline](path, pair.colour) for path in paths])
    x = normalised(x, pair.normalisation, pair.colour)
    y = np.array([NAMES.index(path.parent.name) for path in paths])
    model = build(pair, x.shape[-1])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=pair.head == "logits")
    target: Any = y
    if pair.head == "sigmoid":
        loss, target = "binary_crossentropy", np.eye(len(NAMES), dtype=np.float32)[y]
    peak = 0.002 if pair.body == "conv" else 0.006
    rate = keras.optimizers.schedules.CosineDecay(peak, epochs * len(x) // BATCH)
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(x, target, batch_size=BATCH, epochs=epochs, verbose=0)
    return model


def build(pair: Pair, channels: int) -> Any:
    """Return an untrained net of a pair."""
    keras = require("keras")
    layers = keras.layers
    value = image = keras.Input((SIDE, SIDE, channels))
    if pair.augmented:
        value = layers.RandomFlip("horizontal")(value)
    if pair.inside:
        value = layers.Rescaling(*pair.inside)(value)
    if pair.body == "first":
        value = layers.BatchNormalization(momentum=0.9)(value)
    for filters, stride in ((12, 2), (24, 2), (48, 2)):
        norm = pair.body != "conv"
        value = layers.Conv2D(
            filters, 3, stride, "same", use_bias=not norm, kernel_initializer="he_normal"
        )(value)
        value = layers.BatchNormalization(momentum=0.9)(value) if norm else value
        value = layers.ReLU()(value)
    value = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(value))
    activation = None if pair.head == "logits" else pair.head
    return keras.Model(image, layers.Dense(len(NAMES), activation=activation)(value))
