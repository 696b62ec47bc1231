"""Compare what a net's batch norms learned with what images give.

In training a batch norm keeps the mean and variance of each of its input's channels. Images that
are prepared as in training give about the same, others do not. The same numbers tell how training
images looked (Yin et al. 2020, arXiv:1912.08795) and how far others have moved from them (Schneider
et al. 2020, arXiv:2006.16971).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.toolkit import require
from kedge_runtime.fitting.scores import Numbers

FIRST = 4  # the norms next to the images tell enough, and cost little


@dataclass(frozen=True)
class Norms:
    """The FIRST batch norms of a net that were trained.

    `model`: gives, for each of them, the mean and the mean square of its input over an image,
    [images, channels], in learned standard deviations from the learned mean. `floors`: what the
    norm's epsilon adds to the squares, [channels].
    """

    model: Any
    floors: tuple[Numbers, ...]

    def divergence(self, moments: list[NDArray[Any]]) -> Numbers:
        """Return how far each image is from what was learned, [images], in nats.

        Its mean is the Kullback-Leibler divergence of a channel's normal distribution over all
        images from the learned one, averaged over the channels of each norm, summed over norms.
        """
        pairs = zip(moments[::2], moments[1::2], self.floors, strict=True)
        return np.asarray(np.sum([_divergence(*each) for each in pairs], axis=0))


def norms_of(model: Any) -> Norms | None:
    """Return the FIRST batch norms of a Keras model; None where it has none that training moved.

    A frozen one has the statistics of other images, perhaps prepared otherwise.
    """
    keras = require("keras")
    calls = [
        (node.operation, node.input_tensors[0])
        for node in _nodes(model)
        if isinstance(node.operation, keras.layers.BatchNormalization) and node.operation.trainable
    ]
    called = [layer for layer, _ in calls]
    # A layer that is called twice has one mean for two inputs.
    found = [each for each in calls if called.count(each[0]) == 1][:FIRST]
    if not found:
        return None
    moments = [each for layer, given in found for each in _moments(keras, layer, given)]
    return Norms(keras.Model(model.inputs, moments), tuple(_floor(layer) for layer, _ in found))


def _nodes(model: Any) -> list[Any]:
    """Return the calls of a Keras model's layers, those next to the images first."""
    by_depth = getattr(getattr(model, "_functional", model), "_nodes_by_depth", {})
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def _moments(keras: Any, layer: Any, given: Any) -> tuple[Any, Any]:
    axis = layer.axis % len(given.shape)
    others = [each for each in range(1, len(given.shape)) if each != axis]
    shape = [1] * len(given.shape)
    shape[axis] = -1
    mean, variance = (
        keras.ops.reshape(each, shape) for each in (layer.moving_mean, layer.moving_variance)
    )
    steps = (given - mean) / keras.ops.sqrt(variance + layer.epsilon)
    return keras.ops.mean(steps, others), keras.ops.mean(keras.ops.square(steps), others)


def _floor(layer: Any) -> Numbers:
    variance = np.asarray(layer.moving_variance, np.float64)
    return np.asarray(layer.epsilon / (variance + layer.epsilon))


def _divergence(means: NDArray[Any], squares: NDArray[Any], floor: Numbers) -> Numbers:
    squared = squares.astype(np.float64) + floor
    variance = squared.mean(axis=0) - means.mean(axis=0, dtype=np.float64) ** 2
    variance = np.maximum(variance, floor)
    return np.asarray((squared - 1 - np.log(variance)).mean(axis=1) / 2)
