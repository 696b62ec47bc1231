"""The small nets of the league, trained in minutes, and the images that they classify.

Each has an operator that int8 is known to hurt, or that preparation has to know: LeakyReLU, grouped
and transposed convolutions, layers that are called twice, and, from the tests' models, SiLU with
squeeze-and-excite. They
classify the demo's pictograms, made hard by noise and low contrast, so that they err and can drift.
One of them also comes as a SavedModel and one as a TF-Hub-style module. What is in the folder
already is kept.

    python benchmarks/league_nets.py --out DIR [--nets NAME...]

The folder gets NAME.keras, NAME-saved-model/, NAME-hub/, images/CLASS/NUMBER.png and labels.txt.
`--nets` without a name trains none.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from hub_module import Module
from kedge_models.demo import train
from kedge_models.demo.pictograms import NAMES, dataset
from kedge_runtime.arrays import Pixels
from kedge_runtime.output import quiet

SIDE = 48
TRAINING, EPOCHS, BATCH, SEED = 3000, 7, 32, 17
IMAGES, IMAGES_SEED = 1200, 1017
NOISE = 15.0  # standard deviation, in bytes
LEAST_CONTRAST = 0.5
SAVED_MODEL, HUB = "silu-se", "leaky-relu"
# Trained already, on such images with more noise (tests/helpers/make_small_nets.py).
MADE = {SAVED_MODEL: Path(__file__).parent.parent / "tests/models/small-efficientnet.keras"}

Tensor = Any
Body = Callable[[Tensor], Tensor]


def hard(rendered: list[Pixels], seed: int) -> Pixels:
    """Return images of any size as noisy, pale ones, uint8 [n, SIDE, SIDE, 3]."""
    rng = np.random.default_rng(seed)
    small = [cv2.resize(train.centre(each, train.SIDE), (SIDE, SIDE)) for each in rendered]
    values = np.stack(small).astype(np.float32) - 128
    values *= rng.uniform(LEAST_CONTRAST, 1, (len(values), 1, 1, 1)).astype(np.float32)
    values += rng.standard_normal(values.shape, np.float32) * np.float32(NOISE)
    return np.asarray((values + 128).clip(0, 255), np.uint8)


def _conv(value: Tensor, filters: int, size: int = 1, stride: int = 1, groups: int = 1) -> Tensor:
    layer = keras.layers.Conv2D(
        filters, size, stride, padding="same", groups=groups, use_bias=False
    )
    return keras.layers.BatchNormalization(momentum=0.9)(layer(value))


def _leaky(value: Tensor, slope: float = 0.1) -> Tensor:
    return keras.layers.LeakyReLU(negative_slope=slope)(value)


def _relu(value: Tensor) -> Tensor:
    return keras.layers.ReLU()(value)


def _joined(value: Tensor, inner: Tensor) -> Tensor:
    return keras.layers.Add()([inner, value]) if inner.shape == value.shape else inner


def _dark(image: Tensor) -> Tensor:
    """Bottlenecks with LeakyReLU, as of YOLO's backbone (arXiv:1804.02767, table 1)."""
    value = _leaky(_conv(image, 12, 3, 2))
    for filters, stride in ((16, 2), (24, 2), (24, 1), (48, 2), (48, 1)):
        inner = _leaky(_conv(value, filters // 2))
        value = _joined(value, _leaky(_conv(inner, filters, 3, stride)))
    return _leaky(_conv(value, 96))


def _plain(image: Tensor) -> Tensor:
    """3x3 convolutions and pooling, as of VGG (arXiv:1409.1556), with LeakyReLU."""
    value = image
    for filters in (16, 24, 48):
        value = keras.layers.MaxPooling2D()(_leaky(_conv(value, filters, 3), 0.25))
    return _leaky(_conv(value, 64, 3, 2), 0.25)


def _grouped(image: Tensor) -> Tensor:
    """Bottlenecks with grouped 3x3 convolutions, as of ResNeXt (arXiv:1611.05431, figure 3c)."""
    value = _relu(_conv(image, 16, 3, 2))
    for filters, stride in ((16, 2), (32, 2), (32, 1), (48, 2), (48, 1)):
        inner = _relu(_conv(_relu(_conv(value, filters)), filters, 3, stride, groups=4))
        value = _relu(_joined(value, _conv(inner, filters)))
    return _relu(_conv(value, 96))


def _transposed(image: Tensor) -> Tensor:
    """An hourglass: down, up by transposed convolutions, joined with what was before, and down."""
    layers = keras.layers
    early = _relu(_conv(_relu(_conv(image, 12, 3, 2)), 16, 3, 2))
    deep = _relu(_conv(_relu(_conv(early, 24, 3, 2)), 32, 3, 2))
    for filters in (24, 16):
        up = layers.Conv2DTranspose(filters, 3, 2, padding="same", use_bias=False)
        deep = _relu(layers.BatchNormalization(momentum=0.9)(up(deep)))
    value = layers.Concatenate()([early, deep])
    for filters in (32, 48):
        value = _relu(_conv(value, filters, 3, 2))
    return _relu(_conv(value, 96))


def _shared(image: Tensor) -> Tensor:
    """Residual blocks that are called twice each, as of recurrent nets (arXiv:1604.03640)."""
    layers = keras.layers
    value = _relu(_conv(image, 16, 3, 2))
    for filters in (24, 32, 48):
        value = _relu(_conv(value, filters, 3, 2))
        wide = layers.Conv2D(2 * filters, 1, activation="relu")
        inner = layers.DepthwiseConv2D(3, padding="same", activation="relu")
        narrow = layers.Conv2D(filters, 1)
        for _ in range(2):
            value = layers.Add()([value, narrow(inner(wide(value)))])
    return _relu(_conv(value, 96))


NETS: dict[str, Body] = {
    "leaky-relu": _dark,
    "leaky-plain": _plain,
    "grouped": _grouped,
    "transposed": _transposed,
    "shared": _shared,
}


def untrained(name: str) -> Any:
    """Return a net, float32 [n, SIDE, SIDE, 3] of -1 to 1 -> probabilities [n, 10]."""
    image = keras.Input((SIDE, SIDE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(NETS[name](image))
    answers = keras.layers.Dense(len(NAMES), activation="softmax")(pooled)
    return keras.Model(image, answers, name=name.replace("-", "_"))


def trained(name: str, rendered: list[Pixels], classes: NDArray[np.int64]) -> Any:
    """Return a trained net."""
    keras.utils.set_random_seed(SEED)
    model = untrained(name)
    learner = keras.Sequential([keras.layers.Rescaling(1 / 127.5, offset=-1), model])
    rate = keras.optimizers.schedules.CosineDecay(0.003, EPOCHS * len(rendered) // BATCH)
    learner.compile(keras.optimizers.AdamW(rate), "sparse_categorical_crossentropy")
    for epoch in range(EPOCHS):
        learner.fit(hard(rendered, SEED + epoch), classes, batch_size=BATCH, verbose=0)
    return model


def write_images(folder: Path) -> tuple[Pixels, NDArray[np.int64]]:
    """Write the images, in a folder for each class, where they are missing; return them."""
    rendered, classes = dataset(IMAGES, IMAGES_SEED)
    images = hard(rendered, IMAGES_SEED)
    for position, (image, index) in enumerate(zip(images, classes, strict=True)):
        path = folder / NAMES[index] / f"{position:04}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image[..., ::-1])
    return images, classes


def make(folder: Path, names: list[str]) -> None:
    """Train the nets that the folder lacks; `trained.json` says how often each is right."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    images, classes = write_images(folder / "images")
    missing = [name for name in names if not (folder / f"{name}.keras").exists()]
    rendered, targets = dataset(TRAINING, SEED) if missing else ([], classes)
    for name in missing:
        start = time.perf_counter()
        model = trained(name, rendered, targets)
        train.save(model, folder / f"{name}.keras")
        answers = model.predict(train.normalise(images), batch_size=BATCH, verbose=0)
        share = float((answers.argmax(axis=1) == classes).mean())
        _note(folder / "trained.json", name, share)
        print(f"{name}: right on {share:.3f}, {time.perf_counter() - start:.0f} s", flush=True)


def export(folder: Path) -> None:
    """Write the tests' net, the SavedModel and the TF-Hub-style module, where they are missing."""
    for name, path in MADE.items():
        shutil.copy(path, folder / f"{name}.keras")
    forms = {f"{SAVED_MODEL}-saved-model": _saved_model, f"{HUB}-hub": _hub}
    for name, write in forms.items():
        source = folder / f"{name.removesuffix('-saved-model').removesuffix('-hub')}.keras"
        if source.exists() and not (folder / name).exists():
            with quiet():
                write(keras.models.load_model(source, compile=False), folder / name)


def _saved_model(model: Any, path: Path) -> None:
    model.export(path, verbose=False)


def _hub(model: Any, path: Path) -> None:
    import tensorflow as tf

    module = Module(model, "logits")
    tf.saved_model.save(module, str(path), signatures=module.run)


def _note(path: Path, name: str, share: float) -> None:
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | {name: share}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--nets", nargs="*", choices=NETS, default=list(NETS))
    arguments = parser.parse_args()
    make(arguments.out, arguments.nets)
    export(arguments.out)


if __name__ == "__main__":
    main()
