"""Fine-tune MobileNetV2 on your own images: a folder with one folder a class.

    python finetune.py flowers/ --out flowers.keras
    kedge convert flowers.keras --preprocess image_dataset --calibrate flowers/ --to tflite:int8

This is plain Keras, as in its tutorials. kedge takes the file that it saves.
"""

import argparse
import math
from itertools import chain
from pathlib import Path
from typing import Any

import keras

FILTERS = (16, 32, 64, 64)
LEAST_EPOCHS, LEAST_STEPS = 5, 150  # few images make few steps an epoch


def dataset(folder: Path, subset: str, side: int) -> Any:
    """Return a fifth of the images for validation, or the others for training."""
    return keras.utils.image_dataset_from_directory(
        folder,
        validation_split=0.2,
        subset=subset,
        seed=1,
        image_size=(side, side),
    )


def small_network(classes: int, side: int) -> Any:
    """Return a network that learns from a few hundred images without other weights."""
    keep = {"padding": "same", "activation": "relu"}
    blocks = [[keras.layers.Conv2D(n, 3, **keep), keras.layers.MaxPooling2D()] for n in FILTERS]
    ends = [
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(classes, activation="softmax"),
    ]
    start = [keras.Input((side, side, 3)), keras.layers.Rescaling(1 / 127.5, offset=-1)]
    return keras.Sequential([*start, *chain.from_iterable(blocks), *ends])


def network(classes: int, side: int, weights: str) -> Any:
    """Return MobileNetV2 with a new last layer. Its own layers stay as they are.

    `weights`: "imagenet", which Keras downloads; or a file of them without the last layer.
    """
    base = keras.applications.MobileNetV2(
        input_shape=(side, side, 3), include_top=False, pooling="avg", weights=weights
    )
    base.trainable = False
    image = keras.Input((side, side, 3))
    # The normalisation is part of the model, so nobody can forget it.
    pixels = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    features = base(pixels, training=False)  # the batch norms keep ImageNet's statistics
    return keras.Model(image, keras.layers.Dense(classes, activation="softmax")(features))


def epochs_for(steps: int) -> int:
    """Return how many epochs of so many steps teach a new last layer."""
    return max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / steps))


def main(folder: Path, out: Path, epochs: int | None, side: int, weights: str | None) -> None:
    """Train the model on images of `side` x `side` pixels, and save it."""
    keras.utils.set_random_seed(1)  # the same folder gives the same model
    training, validation = (dataset(folder, part, side) for part in ("training", "validation"))
    classes = len(training.class_names)
    model = network(classes, side, weights) if weights else small_network(classes, side)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    steps = len(training)
    epochs = epochs or epochs_for(steps)
    print(f"{epochs} epochs of {steps} steps: {epochs * steps} steps (--epochs N for others)")
    model.fit(training, validation_data=validation, epochs=epochs)
    model.save(out)
    print(f"saved {out} with the classes {', '.join(training.class_names)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="one folder a class")
    parser.add_argument("--out", type=Path, default=Path("model.keras"))
    parser.add_argument("--epochs", type=int, help="by default 5, or as many as take 150 steps")
    parser.add_argument("--size", type=int, default=160, help="pixels of a side; Frigate wants 224")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--weights",
        default="imagenet",
        metavar="FILE",
        help="MobileNetV2 without its last layer, .h5; by default Keras downloads ImageNet's",
    )
    start.add_argument("--from-scratch", action="store_true", help="train a small network instead")
    given = parser.parse_args()
    weights = None if given.from_scratch else given.weights
    main(given.folder, given.out, given.epochs, given.size, weights)
