"""Train the demo model: `python -m kedge_models.demo.train --seed 7 --out demo.keras`.

The same seed, versions and machine give the same weights. TensorFlow is imported inside the
functions, so that importing this module is cheap.
"""

import tempfile
import zipfile
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from kedge_models.demo.pictograms import dataset
from kedge_models.demo.shapes import LABELS, MODEL
from kedge_runtime.arrays import Pixels

SIDE = 96
SHORT = round(SIDE / 0.875)
"""The short side that the runtime scales an image to before it cuts out the centre."""

JITTER = 6
"""How far a training crop may lie from the centre, in pixels."""

IMAGES = 12_000
EPOCHS = 20
BATCH = 64


def train(seed: int) -> Any:
    """Render the training images and train the model on them; return the Keras model."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    windows, classes = _windows(seed)
    model = keras.applications.MobileNet(
        alpha=0.25, input_shape=(SIDE, SIDE, 3), classes=len(LABELS), weights=None
    )
    # The wrapper takes bytes, a quarter of the memory, and keeps the optimiser out of the model.
    learner = keras.Sequential([keras.layers.Rescaling(1 / 127.5, offset=-1), model])
    learner.compile(_optimiser(), "sparse_categorical_crossentropy")
    rng = np.random.default_rng(seed)
    for _ in range(EPOCHS):
        learner.fit(_augment(windows, rng), classes, batch_size=BATCH, verbose=2)
    return model


def accuracy(model: Any, images: list[Pixels], classes: NDArray[np.int64]) -> float:
    """Classify images of any size as the runtime would; return the share that is right, 0..1."""
    batch = normalise(np.stack([centre(image, SIDE) for image in images]))
    answers = model.predict(batch, batch_size=BATCH, verbose=0).argmax(axis=1)
    return float((answers == classes).mean())


def centre(image: Pixels, side: int) -> Pixels:
    """Scale the short side to SHORT, then cut out the centre: uint8 (side, side, 3)."""
    height, width = image.shape[:2]
    scale = SHORT / min(height, width)
    size = round(width * scale), round(height * scale)
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    top, left = (size[1] - side) // 2, (size[0] - side) // 2
    return np.asarray(scaled[top : top + side, left : left + side], dtype=np.uint8)


def normalise(batch: Pixels) -> NDArray[np.float32]:
    """Scale bytes to -1 to 1, as keras.applications' mode "tf" does: float32, same shape."""
    return batch.astype(np.float32) / np.float32(127.5) - np.float32(1)


def _windows(seed: int) -> tuple[Pixels, NDArray[np.int64]]:
    """Render the training images, each with room for JITTER on all sides, and their classes."""
    images, classes = dataset(IMAGES, seed)
    return np.stack([centre(image, SIDE + 2 * JITTER) for image in images]), classes


def _augment(windows: Pixels, rng: np.random.Generator) -> Pixels:
    """Cut (n, SIDE, SIDE, 3) out of larger windows, each elsewhere, half of them mirrored."""
    tops, lefts = rng.integers(0, 2 * JITTER + 1, size=(2, len(windows)))
    cut = np.empty((len(windows), SIDE, SIDE, 3), dtype=np.uint8)
    for position, (window, top, left) in enumerate(zip(windows, tops, lefts, strict=True)):
        crop = window[top : top + SIDE, left : left + SIDE]
        cut[position] = crop[:, ::-1] if rng.random() < 0.5 else crop
    return cut


def _optimiser() -> Any:
    import keras

    # Plain SGD with a high rate: AdamW at 3e-3 was still near chance after a quarter of the time.
    steps = EPOCHS * -(-IMAGES // BATCH)
    warmup = steps // EPOCHS
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=steps - warmup, warmup_target=0.15, warmup_steps=warmup
    )
    return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)


def save(model: Any, out: Path) -> None:
    """Write the model's .keras file compressed; Keras reads it as it reads its own.

    Keras itself doesn't compress, and a quarter of its file is JSON and HDF5's structure.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.keras"
        model.save(plain)
        with zipfile.ZipFile(plain) as source, zipfile.ZipFile(out, "w") as target:
            for name in source.namelist():
                target.writestr(name, source.read(name), zipfile.ZIP_DEFLATED, compresslevel=9)


@click.command()
@click.option("--seed", default=7, show_default=True, help="Of the images and the weights.")
@click.option("--out", default=MODEL, show_default=True, type=click.Path(path_type=Path))
@click.option("--validation-count", default=2000, show_default=True, help="Images to measure on.")
def main(seed: int, out: Path, validation_count: int) -> None:
    """Train the demo model, measure it on new images, and write it."""
    model = train(seed)
    share = accuracy(model, *dataset(validation_count, seed + 1))
    save(model, out)
    click.echo(
        f"{out}: {out.stat().st_size} bytes, right on {share:.2%} of {validation_count} images"
    )


if __name__ == "__main__":
    main()
