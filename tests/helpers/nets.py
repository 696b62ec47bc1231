"""Small Keras nets for the tests of preparation, one for each shape that a graph can have.

Their weights are random, and so are what their batch norms have seen: nothing is 0 or 1 by luck.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert.prepare import preparation
from kedge_convert.prepare.graph import Graph
from kedge_convert.source import Source
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import read_content
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.image.preprocessing import Preprocessor, dequantise

SIDE = 12


def make(name: str, seed: int = 0) -> Any:
    """Return one of NETS, [n, 12, 12, 3] -> [n, 5], with random weights and batch norms."""
    keras = require("keras")
    keras.utils.set_random_seed(seed)
    picture = keras.Input((SIDE, SIDE, 3))
    made = NETS[name](keras.layers, picture)
    model = made if isinstance(made, keras.Model) else keras.Model(picture, made)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name in RANGES:
            weight.assign(rng.uniform(*RANGES[weight.name], weight.shape))
    return model


RANGES = {
    "bias": (-0.3, 0.3),
    "gamma": (0.5, 2.0),
    "beta": (-0.5, 1.0),
    "moving_mean": (-0.5, 0.5),
    "moving_variance": (0.3, 2.0),
}


def pictures(count: int, seed: int = 0) -> Floats:
    """Return smooth random pictures in about -1..1, float32 [count, 12, 12, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-1, 1, (count, SIDE // 3, SIDE // 3, 3))
    fine = np.kron(coarse, np.ones((1, 3, 3, 1))) + rng.normal(0, 0.1, (count, SIDE, SIDE, 3))
    return np.asarray(fine, np.float32)


def answers(source: Source, form: str, content: bytes, photos: Sequence[Path]) -> Floats:
    """Return an unsealed file's outputs, [photos, classes], as the runtime would compute them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model.{form}"
        path.write_bytes(content)
        engine = open_engine(read_content(path))
        plan = Preprocessor(replace(source.input, tensor=engine.input))
        rows = [engine.run(plan.tensor(plan.read(photo))) for photo in photos]
        return np.asarray(dequantise(np.concatenate(rows), engine.output), np.float32)


def prepared(
    graph: Graph, photos: Floats, seed: int = 0, tick: Callable[[], None] = lambda: None
) -> Any:
    """Return the Keras model with prepared weights, fitted to photos [n, h, w, 3]."""
    levelled = preparation.equalised(graph, photos)
    return preparation.round_weights(levelled, photos, preparation.Rounding(seed), tick).build()


def untreated(graph: Graph) -> list[str]:
    """Return the names of layers with kernels that preparation doesn't treat."""
    names = (
        node.layer.name
        for node in graph.nodes
        if node.weights is None
        and any(len(w.shape) > 1 for w in getattr(node.layer, "weights", ()))
    )
    return list(dict.fromkeys(names))


def _normed(layers: Any, layer: Any, value: Any, top: float | None = None) -> Any:
    return layers.ReLU(top)(layers.BatchNormalization()(layer(value)))


def _head(layers: Any, value: Any) -> Any:
    return layers.Dense(5, name="logits")(layers.GlobalAveragePooling2D()(value))


def _chain(layers: Any, picture: Any) -> Any:
    conv = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="first")
    value = _normed(layers, conv, picture)
    value = _normed(layers, layers.DepthwiseConv2D(3, padding="same", name="depthwise"), value)
    return _head(layers, _normed(layers, layers.Conv2D(16, 1, name="pointwise"), value))


def _chain6(layers: Any, picture: Any) -> Any:
    value = _normed(layers, layers.Conv2D(8, 3, padding="same", name="first"), picture, 6.0)
    value = _normed(layers, layers.DepthwiseConv2D(3, use_bias=False, name="second"), value, 6.0)
    return _head(layers, _normed(layers, layers.Conv2D(8, 1, name="third"), value, 6.0))


def _branches(layers: Any, picture: Any) -> Any:
    left = _normed(layers, layers.Conv2D(6, 3, padding="same"), picture)
    right = _normed(layers, layers.Conv2D(4, 1), layers.AveragePooling2D(3, 1, "same")(picture))
    return _head(layers, layers.Concatenate()([left, right]))


def _residual(layers: Any, picture: Any) -> Any:
    stem = _normed(layers, layers.Conv2D(8, 3, padding="same"), picture)
    value = _normed(layers, layers.Conv2D(8, 3, padding="same"), stem)
    value = layers.BatchNormalization()(layers.Conv2D(8, 1)(value))
    return _head(layers, layers.Add()([stem, value]))


def _squeeze_excite(layers: Any, picture: Any) -> Any:
    value = _normed(layers, layers.Conv2D(8, 3, padding="same"), picture)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(value)
    gate = layers.Conv2D(4, 1, activation="relu")(gate)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(gate)
    value = layers.Multiply()([value, gate])
    return _head(layers, _normed(layers, layers.Conv2D(8, 1), value))


def _shared(layers: Any, picture: Any) -> Any:
    both = layers.Conv2D(6, 3, padding="same", name="shared")
    left, right = both(picture), both(layers.MaxPooling2D(3, 1, "same")(picture))
    return _head(layers, layers.ReLU()(layers.BatchNormalization()(layers.Add()([left, right]))))


def _shared_norm(layers: Any, picture: Any) -> Any:
    norm = layers.BatchNormalization(name="shared_norm")
    left, right = (norm(layers.Conv2D(6, 3)(picture)) for _ in range(2))
    return _head(layers, layers.Maximum()([left, right]))


def _nested(layers: Any, picture: Any) -> Any:
    keras = require("keras")
    inner_input = keras.Input((SIDE, SIDE, 3))
    value = _normed(layers, layers.Conv2D(8, 3, use_bias=False), inner_input)
    inner = keras.Model(inner_input, layers.BatchNormalization()(layers.Conv2D(8, 1)(value)))
    # The activation that belongs to the inner model's last layer lies outside of it.
    return _head(layers, layers.ReLU()(inner(picture)))


def _separable(layers: Any, picture: Any) -> Any:
    conv = layers.SeparableConv2D(8, 3, 2, "same", depth_multiplier=2, activation="relu")
    value = layers.SeparableConv2D(6, 3, dilation_rate=2, use_bias=False)(conv(picture))
    return _head(layers, layers.ReLU()(layers.BatchNormalization()(value)))


def _sequential(layers: Any, picture: Any) -> Any:
    keras = require("keras")
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Conv2D(8, 3),
            layers.BatchNormalization(scale=False),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(7),
            layers.BatchNormalization(center=False),
            layers.Dense(5, name="logits"),
        ]
    )


def _own_activation(layers: Any, picture: Any) -> Any:
    value = layers.Conv2D(8, 3, activation="relu")(picture)
    value = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="swish")(value)
    # Not foldable: an activation lies between.
    return _head(layers, layers.BatchNormalization()(value))


def _norm_first(layers: Any, picture: Any) -> Any:
    value = layers.BatchNormalization(name="norm_first")(picture)
    value = layers.Conv2D(8, 3, strides=2, padding="same")(value)
    return _head(layers, layers.BatchNormalization()(layers.ReLU()(value)))


def _dropout(layers: Any, picture: Any) -> Any:
    value = layers.Dropout(0.5)(layers.Conv2D(8, 3)(picture))
    value = layers.ReLU()(layers.BatchNormalization()(value))
    return layers.Dropout(0.2)(_head(layers, value))


def _used_twice(layers: Any, picture: Any) -> Any:
    """A convolution whose bare output is taken by a batch norm and by another layer."""
    bare = layers.Conv2D(8, 3, padding="same")(picture)
    normed = layers.ReLU()(layers.BatchNormalization()(bare))
    return _head(layers, layers.Add()([bare, normed]))


def _shared_separable(layers: Any, picture: Any) -> Any:
    both = layers.SeparableConv2D(3, 3, padding="same", name="shared")
    return _head(layers, layers.ReLU()(both(both(picture))))


def _nested_twice(layers: Any, picture: Any) -> Any:
    keras = require("keras")
    inner_input = keras.Input((SIDE, SIDE, 3))
    conv = layers.Conv2D(3, 3, padding="same", name="shared")
    inner = keras.Model(inner_input, _normed(layers, conv, inner_input))
    return _head(layers, inner(inner(picture)))


def _other_axes(layers: Any, picture: Any) -> Any:
    """Batch norms of the rows, of the last axis by its number, and by its other name."""
    value = layers.BatchNormalization(axis=1)(layers.Conv2D(SIDE, 3, padding="same")(picture))
    value = layers.BatchNormalization(axis=3)(layers.Conv2D(8, 3)(layers.ReLU()(value)))
    value = layers.Dense(6)(layers.GlobalAveragePooling2D()(value))
    return layers.Dense(5, name="logits")(layers.BatchNormalization(axis=1)(value))


def _noisy(layers: Any, picture: Any) -> Any:
    """Layers that do something in training only."""
    value = layers.SpatialDropout2D(0.3)(layers.Conv2D(8, 3)(layers.GaussianNoise(0.1)(picture)))
    value = layers.ReLU()(layers.BatchNormalization()(value))
    return _head(layers, layers.GaussianDropout(0.2)(value))


def _left_alone(layers: Any, picture: Any) -> Any:
    value = layers.Conv2D(6, 3, groups=3, name="grouped")(picture)
    value = layers.EinsumDense("bhwi,io->bhwo", (None, None, 6), name="einsum")(value)
    return _head(layers, layers.BatchNormalization()(value))


def _grouped(layers: Any, picture: Any) -> Any:
    """A bottleneck of ResNeXt's kind: a 3x3 convolution of groups between pointwise ones."""
    value = _normed(layers, layers.Conv2D(12, 3, use_bias=False), picture)
    value = _normed(layers, layers.Conv2D(12, 3, 2, groups=3, use_bias=False), value)
    return _head(layers, _normed(layers, layers.Conv2D(16, 1, use_bias=False), value))


def _transposed(layers: Any, picture: Any) -> Any:
    """An hourglass, up by transposed convolutions of several strides, paddings and activations."""
    value = _normed(layers, layers.Conv2D(8, 3, 2, "same", use_bias=False), picture)
    up = layers.Conv2DTranspose(10, 3, 2, "same", use_bias=False, name="up")
    value = _normed(layers, up, value)
    value = layers.Conv2DTranspose(6, (2, 3), (1, 2), activation="relu", name="wide")(value)
    value = layers.Conv2DTranspose(8, 3, 2, "same", output_padding=0, name="odd")(value)
    value = layers.Flatten()(_normed(layers, layers.Conv2D(4, 5, (8, 16)), value))
    return layers.Dense(5, name="logits")(value)


def _recurrent(layers: Any, picture: Any) -> Any:
    """A residual block that is called twice: each call's kernels see the other's output."""
    value = _normed(layers, layers.Conv2D(8, 3, 2, "same", use_bias=False), picture)
    wide, norm = layers.Conv2D(12, 1, use_bias=False, name="wide"), layers.BatchNormalization()
    depthwise = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")
    narrow = layers.Conv2D(8, 1, name="narrow")
    for _ in range(2):
        value = layers.Add()([value, narrow(depthwise(layers.ReLU()(norm(wide(value)))))])
    return _head(layers, value)


def _pyramid(layers: Any, picture: Any) -> Any:
    """A detector's head, shared between two resolutions."""
    fine = _normed(layers, layers.Conv2D(8, 3, 2, "same"), picture)
    coarse = _normed(layers, layers.Conv2D(8, 3, 2, "same"), fine)
    head, last = layers.Conv2D(8, 3, padding="same", name="head"), layers.Conv2D(5, 1, name="last")
    pooled = layers.GlobalAveragePooling2D()
    ends = [pooled(last(layers.ReLU()(head(each)))) for each in (fine, coarse)]
    return layers.Maximum(name="logits")(ends)


def _mobile(layers: Any, picture: Any) -> Any:
    """The parts of a MobileNetV2: ReLU6, depthwise, a linear bottleneck, a residual, dense."""
    value = _normed(layers, layers.Conv2D(8, 3, 2, "same", use_bias=False), picture, 6.0)
    stem = layers.BatchNormalization()(layers.Conv2D(8, 1, use_bias=False)(value))
    value = _normed(layers, layers.Conv2D(24, 1, use_bias=False), stem, 6.0)
    value = _normed(layers, layers.DepthwiseConv2D(3, 1, "same", use_bias=False), value, 6.0)
    value = layers.BatchNormalization()(layers.Conv2D(8, 1, use_bias=False)(value))
    value = layers.Add()([stem, value])
    return _head(layers, _normed(layers, layers.Conv2D(32, 1, use_bias=False), value, 6.0))


def _constants(layers: Any, picture: Any) -> Any:
    """Numbers of its own between layers, whose operations are called as the layers are."""
    ops = require("keras").ops
    value = _normed(layers, layers.Conv2D(8, 3), picture) + 0.5
    value = ops.maximum(layers.Conv2D(8, 1)(value), -1.5)
    return _head(layers, layers.Conv2D(8, 1)(value) - 0.7)


def _elu(layers: Any, picture: Any) -> Any:
    value = layers.BatchNormalization()(layers.Conv2D(8, 3)(picture))
    return _head(layers, layers.ELU()(value))


def _leaky(layers: Any, picture: Any) -> Any:
    """LeakyReLUs behind every kind of writer, and before every kind of reader."""

    def active(layer: Any, value: Any) -> Any:
        normed = layers.BatchNormalization()(layer(value))
        return layers.LeakyReLU(negative_slope=0.1)(normed)

    stem = active(layers.Conv2D(8, 3, 2, "same"), picture)
    value = active(layers.Conv2D(8, 3, padding="same"), active(layers.Conv2D(6, 1), stem))
    value = layers.Add()([stem, value])
    value = active(layers.DepthwiseConv2D(3), active(layers.Conv2D(12, 1), value))
    return _head(layers, active(layers.Conv2D(16, 1), value))


NETS: dict[str, Callable[[Any, Any], Any]] = {
    "chain": _chain,
    "grouped": _grouped,
    "chain6": _chain6,
    "branches": _branches,
    "residual": _residual,
    "squeeze_excite": _squeeze_excite,
    "shared": _shared,
    "shared_norm": _shared_norm,
    "nested": _nested,
    "separable": _separable,
    "sequential": _sequential,
    "own_activation": _own_activation,
    "norm_first": _norm_first,
    "dropout": _dropout,
    "used_twice": _used_twice,
    "shared_separable": _shared_separable,
    "nested_twice": _nested_twice,
    "other_axes": _other_axes,
    "noisy": _noisy,
    "left_alone": _left_alone,
    "transposed": _transposed,
    "recurrent": _recurrent,
    "pyramid": _pyramid,
    "mobile": _mobile,
    "constants": _constants,
    "elu": _elu,
    "leaky": _leaky,
}
