"""Stand-ins for the pruning layers of TensorFlow Model Optimization.

The package itself can't be installed beside today's numpy (it needs numpy 1).
"""

from functools import cache
from typing import Any

from kedge_convert.toolkit import require

PRUNING = "PruneLowMagnitude"
# Wrappers without a stand-in -> the call that strips them.
STRIPPED = {"ClusterWeights": "tfmot.clustering.keras.strip_clustering(model)"}
# Layer -> the weight that pruning masks, by tfmot's registry.
_MASKED = {
    "Conv1D": "kernel",
    "Conv2D": "kernel",
    "Conv2DTranspose": "kernel",
    "Dense": "kernel",
    "Embedding": "embeddings",
    "SeparableConv1D": "pointwise_kernel",
    "SeparableConv2D": "pointwise_kernel",
}


def stand_ins() -> dict[str, type]:
    """Return the classes by name, as tf_keras's custom_objects."""
    return {PRUNING: _pruning()}


@cache
def _pruning() -> type:
    tf_keras = require("tf_keras")

    class PruneLowMagnitude(tf_keras.layers.Wrapper):  # type: ignore[misc,name-defined]
        """A layer with the masks of its pruning, in the order in which tfmot keeps them."""

        @classmethod
        def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
            layer = tf_keras.layers.deserialize(config["layer"], custom_objects=custom_objects)
            return cls(layer, name=config["name"])

        def build(self, shape: Any) -> None:
            super().build(shape)
            # Tracked once more by the wrapper, as tfmot does: so a .keras file has them twice.
            self.prunable_weights = _kernels(self.layer)
            for kernel in self.prunable_weights:
                self.add_weight(name="mask", shape=kernel.shape, trainable=False)
                self.add_weight(name="threshold", shape=(), trainable=False)
            self.add_weight(name="pruning_step", shape=(), dtype="int64", trainable=False)

        def call(self, inputs: Any, **arguments: Any) -> Any:
            return self.layer(inputs, **arguments)

        @property
        def trainable_weights(self) -> Any:
            return self.layer.trainable_weights

        @property
        def non_trainable_weights(self) -> Any:
            return self.layer.non_trainable_weights + self._non_trainable_weights

    return PruneLowMagnitude


def _kernels(layer: Any) -> list[Any]:
    """Return the weights of a layer that have masks."""
    name = _MASKED.get(type(layer).__name__)
    return [] if name is None else [getattr(layer, name)]
