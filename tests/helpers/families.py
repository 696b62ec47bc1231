"""Small nets with what makes each family of applications hard to export, and their exports.

Run as a script it prints the digests of a net's files, for a comparison across processes:
python families.py convnext FOLDER_OF_PICTURES
"""

import hashlib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import nets
from kedge_convert.export.exported import Exported, ExportOptions
from kedge_convert.export.formats import FORMATS
from kedge_convert.source import Source
from kedge_convert.targets import TARGETS, Target
from kedge_convert.toolkit import require
from kedge_runtime.artefact.contract import Geometry, Input, Normalisation, Output

SIDE = 32
CALIBRATION = 20
SPEC = Input(Geometry(SIDE, SIDE), Normalisation("rgb", 127.5, (1.0, 1.0, 1.0)))


def _head(layers: Any, value: Any) -> Any:
    return layers.Dense(5)(layers.GlobalAveragePooling2D()(value))


def _convnext(keras: Any, picture: Any) -> Any:
    layers = keras.layers
    stem = layers.LayerNormalization(epsilon=1e-6)(layers.Conv2D(16, 4, strides=4)(picture))
    value = layers.Conv2D(16, 7, padding="same", groups=16)(stem)
    value = layers.LayerNormalization(epsilon=1e-6)(value)
    value = layers.Dense(16)(layers.Activation("gelu")(layers.Dense(64)(value)))
    return _head(layers, layers.Add()([stem, value]))


def _mobilenet_v3(keras: Any, picture: Any) -> Any:
    layers = keras.layers
    value = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(picture)
    value = layers.Activation("hard_swish")(layers.BatchNormalization()(value))
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(value)
    gate = layers.Conv2D(16, 1)(layers.ReLU()(layers.Conv2D(8, 1)(pooled)))
    value = layers.Multiply()([value, layers.ReLU(6.0)(gate + 3.0) * (1 / 6)])
    return _head(layers, layers.DepthwiseConv2D(5, padding="same")(value))


def _vgg(keras: Any, picture: Any) -> Any:
    layers = keras.layers
    value = layers.Conv2D(16, 3, padding="same", activation="relu")(picture)
    value = layers.Flatten()(layers.MaxPooling2D(4)(value))
    return layers.Dense(5)(layers.Dense(32, activation="relu")(value))


def _grouped(keras: Any, picture: Any) -> Any:
    layers = keras.layers
    value = layers.Conv2D(16, 3, activation="silu")(picture)
    return _head(layers, layers.Conv2D(32, 3, groups=4, activation="relu")(value))


def _resnet_v2(keras: Any, picture: Any) -> Any:
    # Zeros around a max pooling of negative values: not what onnxruntime makes of them.
    layers = keras.layers
    value = -layers.ReLU()(layers.Conv2D(16, 3, strides=2)(picture))
    value = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(value))
    return _head(layers, layers.Conv2D(16, 3, activation="relu")(value))


FAMILIES = {
    "convnext": _convnext,
    "mobilenet_v3": _mobilenet_v3,
    "vgg": _vgg,
    "grouped": _grouped,
    "resnet_v2": _resnet_v2,
}


@cache
def source(family: str) -> Source:
    keras = require("keras")
    keras.utils.clear_session()  # layers are named by counters, and names are in the files
    keras.utils.set_random_seed(4)
    picture = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(picture, FAMILIES[family](keras, picture), name=family)
    rng = np.random.default_rng(4)
    for weight in model.weights:
        if weight.name in nets.RANGES:
            weight.assign(rng.uniform(*nets.RANGES[weight.name], weight.shape))
    return source_of(model)


def source_of(model: Any) -> Source:
    """Return a model from 32x32 pictures to logits as a source."""
    return Source(model.name, model, SPEC, Output("logits"), (), "sha256:0")


@cache
def exported(family: str, target: Target, pictures: Path) -> Exported:
    """Export a family's net, calibrated on the first pictures of a folder."""
    paths = sorted(pictures.iterdir())[:CALIBRATION] if target.needs_calibration else ()
    form, options = FORMATS[target.format], ExportOptions(tuple(paths))
    return form.export(source(family), target.precision, options)


def digests(family: str, pictures: Path) -> dict[str, str]:
    """Return the SHA-256 of a family's file for every target."""
    return {
        str(target): hashlib.sha256(exported(family, target, pictures).content).hexdigest()
        for target in TARGETS
    }


if __name__ == "__main__":
    folder, *others, last = sys.argv[1:]
    for other in others:
        exported(other, Target("onnx", "float32"), Path(folder))
    print(json.dumps(digests(last, Path(folder))))  # noqa: T201
