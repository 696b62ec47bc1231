"""Trains `models/small-*.keras`: kinds of blocks that int8 is known to hurt, in small.

`python tests/helpers/make_small_nets.py [NAME...]`; about two minutes each on two cores. They
classify the demo's pictograms, made hard by noise and low contrast, so that they err and can drift.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from kedge_models.demo import train
from kedge_models.demo.pictograms import NAMES, dataset
from kedge_runtime.arrays import Pixels

MODELS = Path(__file__).parents[1] / "models"
SIDE = 48
PICTURES, EPOCHS, BATCH, SEED = 5000, 14, 64, 11
NOISE = 30.0  # standard deviation, in bytes
LEAST_CONTRAST = 0.4

Tensor = Any
Activation = Callable[[Tensor], Tensor]


def hard(pictures: list[Pixels], seed: int) -> NDArray[np.uint8]:
    """Return pictures of any size as noisy, pale ones, uint8 [n, SIDE, SIDE, 3]."""
    rng = np.random.default_rng(seed)
    small = [cv2.resize(train.centre(each, train.SIDE), (SIDE, SIDE)) for each in pictures]
    values = np.stack(small).astype(np.float32) - 128
    values *= rng.uniform(LEAST_CONTRAST, 1, (len(values), 1, 1, 1))
    values += rng.normal(0, NOISE, values.shape)
    return (values + 128).clip(0, 255).astype(np.uint8)


def _act(name: str) -> Activation:
    return lambda value: keras.layers.Activation(name)(value)


def _conv(value: Tensor, filters: int, size: int = 1, stride: int = 1) -> Tensor:
    layer = keras.layers.Conv2D(filters, size, stride, padding="same", use_bias=False)
    return keras.layers.BatchNormalization(momentum=0.9)(layer(value))


def _squeezed(value: Tensor, act: Activation, gate: str) -> Tensor:
    """Squeeze-and-excite (Hu et al. 2018, arXiv:1709.01507)."""
    layers, channels = keras.layers, value.shape[-1]
    mean = layers.GlobalAveragePooling2D(keepdims=True)(value)
    inner = act(layers.Conv2D(channels // 4, 1)(mean))
    return layers.Multiply()([value, layers.Conv2D(channels, 1, activation=gate)(inner)])


def _inverted(value: Tensor, filters: int, stride: int, act: Activation, gate: str) -> Tensor:
    """Expand, depthwise, squeeze, project: MBConv (arXiv:1905.02244, arXiv:1905.11946)."""
    layers = keras.layers
    wide = act(_conv(value, 4 * value.shape[-1]))
    depthwise = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)
    wide = act(layers.BatchNormalization(momentum=0.9)(depthwise(wide)))
    narrow = _conv(_squeezed(wide, act, gate), filters)
    return layers.Add()([narrow, value]) if narrow.shape == value.shape else narrow


def _mobile(act: Activation, gate: str) -> Callable[[Tensor], Tensor]:
    def body(picture: Tensor) -> Tensor:
        value = act(_conv(picture, 12, 3, 2))
        for filters, stride in ((16, 2), (16, 1), (24, 2), (24, 1), (40, 2)):
            value = _inverted(value, filters, stride, act, gate)
        return act(_conv(value, 96))

    return body


def _residual(picture: Tensor) -> Tensor:
    """SE-ResNet with basic blocks."""
    act = _act("relu")
    value = act(_conv(picture, 16, 3, 2))
    for filters, stride in ((16, 1), (32, 2), (48, 2)):
        inner = _conv(act(_conv(value, filters, 3, stride)), filters, 3)
        short = value if inner.shape == value.shape else _conv(value, filters, 1, stride)
        value = act(keras.layers.Add()([_squeezed(inner, act, "sigmoid"), short]))
    return value


def _dark(picture: Tensor) -> Tensor:
    """Bottlenecks with LeakyReLU, as of YOLO's backbone (arXiv:1804.02767, table 1)."""
    layers = keras.layers

    def act(value: Tensor) -> Tensor:
        return layers.LeakyReLU(negative_slope=0.1)(value)

    value = act(_conv(picture, 12, 3, 2))
    for filters, stride in ((16, 2), (16, 1), (32, 2), (32, 1), (64, 2)):
        inner = act(_conv(act(_conv(value, filters // 2)), filters, 3, stride))
        value = layers.Add()([inner, value]) if inner.shape == value.shape else inner
    return act(_conv(value, 96))


NETS: dict[str, Callable[[Tensor], Tensor]] = {
    "mobilenetv3": _mobile(_act("hard_silu"), "hard_sigmoid"),
    "efficientnet": _mobile(_act("silu"), "sigmoid"),
    "se-resnet": _residual,
    "darknet": _dark,
}


def make(name: str) -> Any:
    """Return an untrained net, [n, SIDE, SIDE, 3] of -1..1 -> probabilities."""
    picture = keras.Input((SIDE, SIDE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(NETS[name](picture))
    answers = keras.layers.Dense(len(NAMES), activation="softmax")(pooled)
    return keras.Model(picture, answers, name=name.replace("-", "_"))


def trained(name: str) -> Any:
    """Return a trained net."""
    keras.utils.set_random_seed(SEED)
    pictures, classes = dataset(PICTURES, SEED)
    model = make(name)
    learner = keras.Sequential([keras.layers.Rescaling(1 / 127.5, offset=-1), model])
    steps = EPOCHS * PICTURES // BATCH
    rate = keras.optimizers.schedules.CosineDecay(0.004, steps)
    learner.compile(
        keras.optimizers.AdamW(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    for epoch in range(EPOCHS):
        learner.fit(hard(pictures, SEED + epoch), classes, batch_size=BATCH, verbose=2)
    return model


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NETS:
        train.save(trained(chosen), MODELS / f"small-{chosen}.keras")
