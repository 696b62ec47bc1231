"""Layers of Keras 3 that augment images, taken out of a model as it is loaded.

Keras switches them on wherever a model is called without `training=False`, so that exports and
rebuilt models would augment.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from kedge_convert.sources.rebuild import left_out_note
from kedge_convert.sources.registered import registered
from kedge_convert.toolkit import quiet, require

# Beginnings of the names of Keras's layers that do nothing but augment.
_AUGMENTING = ("AugMix", "CutMix", "MixUp", "Rand")


def without_augmentation(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the model without layers that augment, nested ones too, and what is to be said of it.

    A model without any is returned as it is; of others, the weights are copied.
    """
    if not any(map(_augments, model._flatten_layers())):
        return model, ()
    left_out = list[str]()

    def kept_or_identity(layer: Any) -> Any:
        if not _augments(layer):
            return type(layer).from_config(layer.get_config())
        left_out.append(type(layer).__name__)
        return _identity()(name=layer.name)

    with quiet():
        clone_model = require("keras").models.clone_model
        clone = clone_model(model, clone_function=kept_or_identity, recursive=True)
        for old, new in zip(_kept(model), _kept(clone), strict=True):
            _copy_weights(old, new)
    return clone, (left_out_note(left_out),)


@cache
def _identity() -> Any:
    """Return the class of what stands for a layer that augments: it may be told of training."""

    class Identity(require("keras").layers.Identity):  # type: ignore[misc]
        def call(self, inputs: Any, training: Any = None) -> Any:
            return inputs

        def compute_output_spec(self, inputs: Any, training: Any = None) -> Any:
            return super().compute_output_spec(inputs)

    registered(Identity)
    return Identity


def _augments(layer: Any) -> bool:
    is_keras = type(layer).__module__.startswith("keras.")
    return is_keras and type(layer).__name__.startswith(_AUGMENTING)


def _kept(model: Any) -> Iterator[Any]:
    """Yield every layer with weights of its own, in the order of the model."""
    for layer in model._flatten_layers():
        if not _augments(layer) and layer._trainable_variables + layer._non_trainable_variables:
            yield layer


def _copy_weights(old: Any, new: Any) -> None:
    # Not set_weights: Normalization derives what it uses from them as they are loaded.
    store = dict[str, Any]()
    old.save_own_variables(store)
    new.load_own_variables(store)
