"""Build Keras models without what only training needs, computing in float32."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

from kedge_convert.load.graph_layer import INPUT_NAME
from kedge_convert.load.keras2_rebuild import registered, skipped_note
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError
from kedge_runtime.output import quiet

# Names that TensorFlow allows for a scope; with JAX and PyTorch Keras allows any.
_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
# Names of inputs that conversions put before a model.
_OURS = frozenset({"input", INPUT_NAME})


def plain(model: Any) -> Any:
    """Return the model, changed in place: without LoRA, loops, and the name of an input of ours.

    Raises UsageError for weights that Keras has quantised, and for names that TensorFlow refuses.
    """
    for layer in model._flatten_layers():
        _refuse_layer(layer)
        if getattr(layer, "lora_enabled", False):
            _drop_lora(layer)
        if hasattr(layer, "unroll"):
            # A loop is a graph of its own, which no format keeps; an image has few rows.
            layer.unroll = True
    if model.name in _OURS:
        model.name += "_"
    return model


def _refuse_layer(layer: Any) -> None:
    if getattr(layer, "quantization_mode", None):
        raise UsageError(
            f"Keras has quantised its layer {layer.name} ({layer.quantization_mode}): give the "
            "float model that it was made from"
        )
    if type(layer).__name__ != "InputLayer" and not _SCOPE.fullmatch(layer.name):
        raise UsageError(
            f"TensorFlow can't have a layer called {layer.name!r}, allowed are letters of ASCII, "
            "digits and _.-/>: name it so where the model is built"
        )


def _drop_lora(layer: Any) -> None:
    """Take the factors off a layer: a file's kernel includes them already."""
    layer._tracker.unlock()
    for factor in (layer.lora_kernel_a, layer.lora_kernel_b):
        layer._untrack_variable(factor)
    layer._tracker.lock()
    layer.lora_enabled, layer.lora_rank = False, None


# Prefixes of Keras's layers that only augment.
_AUGMENTING = ("AugMix", "CutMix", "MixUp", "Rand")


def without_augmentation(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the model without layers that augment, nested ones too, and notes for the user.

    A model without any is unchanged; otherwise the weights are copied.
    """
    if not any(map(_augments, model._flatten_layers())):
        return model, ()
    skipped = list[str]()

    def clone_layer(layer: Any) -> Any:
        if not _augments(layer):
            return type(layer).from_config(layer.get_config())
        skipped.append(type(layer).__name__)
        return _identity()(name=layer.name)

    with quiet():
        clone_model = require("keras").models.clone_model
        clone = clone_model(model, clone_function=clone_layer, recursive=True)
        for old, new in zip(_with_weights(model), _with_weights(clone), strict=True):
            _copy_weights(old, new)
    return clone, (skipped_note(skipped),)


@cache
def _identity() -> Any:
    """Return the class of replacements of layers that augment; they accept `training`."""

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


def _with_weights(model: Any) -> Iterator[Any]:
    """Yield every layer with weights of its own, in the order of the model."""
    for layer in model._flatten_layers():
        if not _augments(layer) and layer._trainable_variables + layer._non_trainable_variables:
            yield layer


def _copy_weights(old: Any, new: Any) -> None:
    # Not set_weights: Normalization derives what it uses from them as they are loaded.
    store = dict[str, Any]()
    old.save_own_variables(store)
    new.load_own_variables(store)


# Keras's policies: mixed_float16, bfloat16, int8_from_mixed_bfloat16.
_OTHER_FLOATS = re.compile(r"(mixed_)?b?float(16|64)")


def in_float32(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the model with every layer computing in float32, and notes for the user.

    Weights keep their values, except for float64's.
    """
    names = {layer.dtype_policy.name for layer in model._flatten_layers()}
    policies = sorted(filter(_OTHER_FLOATS.search, names))
    if not policies:
        return model, ()
    saving = require("keras").saving
    with quiet():
        config = _with_float32(saving.serialize_keras_object(model))
        single = saving.deserialize_keras_object({**config, "compile_config": None})
        single.set_weights(model.get_weights())
    return single, (f"computed in float32 (was {', '.join(policies)})",)


def _with_float32(config: Any, of_dtype: bool = False) -> Any:
    """Return a configuration with float32 wherever a `dtype` names another float."""
    if isinstance(config, dict):
        return {k: _with_float32(v, of_dtype or k == "dtype") for k, v in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_with_float32(each, of_dtype) for each in config)
    if of_dtype and isinstance(config, str):
        return _OTHER_FLOATS.sub("float32", config)
    return config


# Replacements of the author's own: weights are loaded, and nothing is trained.
_REPLACEMENTS = {"constraints": None, "initializers": "zeros", "regularizers": None}


@contextmanager
def for_inference() -> Iterator[None]:
    """Make Keras 3 build models without parts that only training needs.

    These may be the author's own. Losses, metrics and optimisers are never built: `compile=False`
    covers the outermost model alone, and an optimiser may be another backend's. Initialisers,
    regularisers and constraints are built where they are Keras's own.
    """
    with ExitStack() as stack:
        # Not every builder of models from configurations sets it: layers then read files.
        stack.enter_context(require("keras.src.saving.serialization_lib").SafeModeScope(True))
        stack.enter_context(_replaced(require("keras").Model, "compile_from_config", _skip))
        for name, replacement in _REPLACEMENTS.items():
            # Keras's layers call `get` of these modules, and not of keras.initializers.
            module = require(f"keras.src.{name}")
            stack.enter_context(_replaced(module, "get", _get(module.get, replacement)))
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _skip(model: Any, config: Any) -> None:
    """Leave a model without losses, metrics and optimisers."""


def _get(of_keras: Callable[[Any], Any], replacement: str | None) -> Callable[[Any], Any]:
    """Return Keras's `get`, with a replacement for what isn't Keras's."""
    return lambda identifier: of_keras(replacement if _is_own(identifier) else identifier)


def _is_own(identifier: Any) -> bool:
    """Whether a configuration names a class or function of its author's own."""
    if not isinstance(identifier, dict):
        return False
    is_registered = ">" in str(identifier.get("registered_name"))
    return is_registered or str(identifier.get("module", "keras")).split(".")[0] != "keras"
