"""Make calibration images from a model alone, where there are no photos.

In training, each batch norm stored the mean and variance of its input. Noise is changed by
gradients until the batch norms see such inputs again (Yin et al. 2020, arXiv:1912.08795; Cai et
al. 2020, arXiv:2001.00281). The images set ranges as photos do. They say little about accuracy.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kedge_convert.fitting.subject import Norms, norms_of
from kedge_convert.images import Tick
from kedge_convert.source import Source
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats, Pixels
from kedge_runtime.artefact.contract import Geometry, Input
from kedge_runtime.errors import UsageError
from kedge_runtime.image.preprocessing import Preprocessor

NOTE = (
    "images: {} synthetic ones, made from the model's batch norms; the figures below are of such "
    "images, so measure the file on photos with `kedge drift`"
)
NO_NORMS = (
    "--calibrate synthetic: the model has no batch norms to make images from; give a folder of "
    "images"
)
GRAIN = 8  # pixels of the first noise's structure
ROUGHNESS = 0.05  # weight of differences between neighbours, against nats of each norm
SHIFT = 8  # a variant is moved by up to so small a part of its side


@dataclass(frozen=True)
class Synthesis:
    """How images are made: `count` by gradients, `batch` at once, in `steps` each.

    All others are variants of them: mirrored, moved, of other contrast.
    """

    count: int = 32
    batch: int = 16
    steps: int = 100
    rate: float = 0.05
    seed: int = 0


def write(
    folder: Path, source: Source, total: int, synthesis: Synthesis, tick: Tick = lambda: None
) -> None:
    """Write `total` images as PNG files; `tick` is called after each batch's step.

    Each becomes the network's input as it is, whatever the geometry. Raises UsageError for a model
    without batch norms, OSError where there is no room.
    """
    made = images(source, synthesis, tick)
    rng = np.random.default_rng(synthesis.seed)
    for number in range(total):
        image = made[number % len(made)]
        if number >= len(made):
            image = _variant(image, rng)
        framed = _framed(image, source.input.geometry)
        content = cv2.imencode(".png", framed[..., ::-1])[1].tobytes()
        (folder / f"{number:04}.png").write_bytes(content)  # cv2.imwrite tells of no full disk


def images(source: Source, synthesis: Synthesis, tick: Tick = lambda: None) -> Pixels:
    """Return images of the network's size, RGB uint8 [count, h, w, 3]. Raises UsageError."""
    norms = norms_of(source.model, most=None)
    if norms is None:
        raise UsageError(NO_NORMS)
    rng = np.random.default_rng(synthesis.seed)
    low, high = _bounds(source.input)
    batches = []
    for _ in range(-(-synthesis.count // synthesis.batch)):
        start = _noise((synthesis.batch, *source.model.inputs[0].shape[1:]), rng)
        batches.append(_matched(norms, start, (low, high), (synthesis, tick)))
    shares = np.concatenate(batches)[: synthesis.count]
    return _in_rgb(np.rint(255 * shares).astype(np.uint8), source.input)


def _bounds(spec: Input) -> tuple[Floats, Floats]:
    """Return the network's numbers for bytes 0 and 255, in its own order, [1, h, w, channels]."""
    plan, shape = Preprocessor(spec), (spec.geometry.height, spec.geometry.width, 3)
    low, high = (plan.look_up(np.full(shape, byte, np.uint8)) for byte in (0, 255))
    return np.asarray(low, np.float32), np.asarray(high, np.float32)


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Return structured noise, shares of the range from black to white."""
    fine = rng.normal(0, 1, shape).astype(np.float32)
    coarse = np.stack([_blurred(each) for each in fine])
    colour = rng.normal(0, 0.1, (shape[0], 1, 1, shape[-1]))
    return np.asarray((0.5 + 0.2 * coarse + 0.03 * fine + colour).clip(0.02, 0.98), np.float32)


def _blurred(image: Floats) -> Floats:
    smooth = cv2.GaussianBlur(image, (0, 0), GRAIN).reshape(image.shape)
    return np.asarray(smooth / max(float(smooth.std()), 1e-6), np.float32)


def _matched(
    norms: Norms,
    start: Floats,
    bounds: tuple[Floats, Floats],
    how: tuple[Synthesis, Tick],
) -> Floats:
    """Return images, shares of the range, whose norms see what they saw in training."""
    tf, keras = require("tensorflow"), require("keras")
    (low, high), (synthesis, tick) = bounds, how
    shares = tf.Variable(start)
    optimiser = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(synthesis.rate, synthesis.steps)
    )
    optimiser.build([shares])

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step() -> None:
        with tf.GradientTape() as tape:
            moments = norms.model(low + shares * (high - low), training=False)
            loss = _distance(tf, norms, moments) + ROUGHNESS * _roughness(tf, shares)
        optimiser.apply_gradients([(tape.gradient(loss, shares), shares)])
        shares.assign(tf.clip_by_value(shares, 0.0, 1.0))

    for _ in range(synthesis.steps):
        step()
        tick()
    return np.asarray(shares.numpy(), np.float32)


def _distance(tf: Any, norms: Norms, moments: list[Any]) -> Any:
    """Return the divergence of a batch's statistics from the learned ones, the mean of all norms.

    As Norms.divergence has it, for gradients.
    """
    found = []
    for means, squares, floor in zip(moments[::2], moments[1::2], norms.floors, strict=True):
        least = tf.constant(np.maximum(floor, 1e-6), tf.float32)
        square = tf.reduce_mean(squares, 0) + least
        variance = tf.maximum(square - tf.reduce_mean(means, 0) ** 2, least)
        found.append(tf.reduce_mean(square - 1 - tf.math.log(variance)) / 2)
    return tf.add_n(found) / len(found)


def _roughness(tf: Any, shares: Any) -> Any:
    down, across = shares[:, 1:] - shares[:, :-1], shares[:, :, 1:] - shares[:, :, :-1]
    return tf.reduce_mean(tf.abs(down)) + tf.reduce_mean(tf.abs(across))


def _in_rgb(pixels: Pixels, spec: Input) -> Pixels:
    """Return the network's pixels as RGB, [n, h, w, 3]."""
    colour = spec.normalisation.colour
    if colour == "grey":
        return np.repeat(pixels, 3, axis=-1)
    return pixels[..., ::-1] if colour == "bgr" else pixels


def _variant(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Return an image mirrored or not, moved a little, and of another contrast."""
    turned = image[:, ::-1] if rng.random() < 0.5 else image
    most = max(1, min(image.shape[:2]) // SHIFT)
    down, across = (int(each) for each in rng.integers(0, 2 * most + 1, 2))
    wide = cv2.copyMakeBorder(turned, most, most, most, most, cv2.BORDER_REFLECT_101)
    moved = wide[down : down + image.shape[0], across : across + image.shape[1]]
    contrast = rng.uniform(0.8, 1.2)
    values = (moved.astype(np.float32) - 128) * np.float32(contrast) + 128
    return np.asarray(np.rint(values).clip(0, 255), np.uint8)


def _framed(image: Pixels, geometry: Geometry) -> Pixels:
    """Return an image with the border that a crop takes away again."""
    if geometry.fit not in ("crop", "torchvision_crop") or geometry.crop_fraction == 1:
        return image
    top, left = (_border(side, geometry.crop_fraction) for side in image.shape[:2])
    bottom, right = (
        round(side / geometry.crop_fraction) - side - before
        for side, before in zip(image.shape[:2], (top, left), strict=True)
    )
    return np.asarray(
        cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_REFLECT_101), np.uint8
    )


def _border(side: int, fraction: float) -> int:
    return (round(side / fraction) - side) // 2


def total_steps(synthesis: Synthesis) -> int:
    """Return how often `write` ticks."""
    return -(-synthesis.count // synthesis.batch) * synthesis.steps
