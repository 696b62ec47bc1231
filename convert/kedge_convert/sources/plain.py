"""What Keras lets a model carry and nothing downstream expects, taken off as it is loaded."""

import re
from typing import Any

from kedge_runtime.errors import UsageError

# What TensorFlow takes as the name of a scope; with JAX and PyTorch Keras takes any.
_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
# Names of inputs that conversions put before a model.
_OURS = frozenset({"input", "picture"})


def plain(model: Any, name: str) -> Any:
    """Return the model, changed in place: without LoRA and loops, and not called as our inputs are.

    Raises UsageError for one whose weights Keras has quantised, and for names that TensorFlow
    can't take. `name` is for messages.
    """
    for layer in model._flatten_layers():
        if getattr(layer, "quantization_mode", None):
            raise UsageError(
                f"{name}: Keras has quantised its layer {layer.name} "
                f"({layer.quantization_mode}): give the float model that it was made from"
            )
        if type(layer).__name__ != "InputLayer" and not _SCOPE.fullmatch(layer.name):
            raise UsageError(
                f"{name}: TensorFlow can't have a layer called {layer.name!r}, allowed are letters "
                "of ASCII, digits and _.-/>: name it so where the model is built"
            )
        if getattr(layer, "lora_enabled", False):
            _drop_lora(layer)
        if hasattr(layer, "unroll"):
            # A loop is a graph of its own, which no format keeps; an image has few rows.
            layer.unroll = True
    if model.name in _OURS:
        model.name += "_"
    return model


def _drop_lora(layer: Any) -> None:
    """Take the factors off a layer: those that a file holds are in its kernel already."""
    layer._tracker.unlock()
    for factor in (layer.lora_kernel_a, layer.lora_kernel_b):
        layer._untrack_variable(factor)
    layer._tracker.lock()
    layer.lora_enabled, layer.lora_rank = False, None
