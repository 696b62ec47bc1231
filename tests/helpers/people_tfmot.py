"""What tensorflow-model-optimization does to a net: pruning and quantisation-aware training."""

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any, cast

from people_pixels import Kit


def _tfmot() -> Any:
    return import_module("tensorflow_model_optimization")


def pruned(kit: Kit, model: Any) -> Any:
    """Wrap each layer for pruning."""
    tfmot = _tfmot()
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.3, begin_step=0, frequency=5)
    return tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)


def stripped(kit: Kit, model: Any) -> Any:
    """Take the wrappers off again, as the guide says before saving."""
    return _tfmot().sparsity.keras.strip_pruning(model)


def quantised(kit: Kit, model: Any) -> Any:
    """Put fake quantisation around each layer."""
    return _tfmot().quantization.keras.quantize_model(model)


def callbacks(shape: str) -> list[Any]:
    """Return what the training of a pruned net needs."""
    if not shape.startswith("pruned"):
        return []
    return [_tfmot().sparsity.keras.UpdatePruningStep()]


def scope(shape: str) -> AbstractContextManager[Any]:
    """Return the scope in which a net's own program can read its file."""
    if shape not in ("quantised", "pruned_wrapped"):
        return nullcontext()
    tfmot = _tfmot()
    if shape == "quantised":
        return cast(AbstractContextManager[Any], tfmot.quantization.keras.quantize_scope())
    return cast(AbstractContextManager[Any], tfmot.sparsity.keras.prune_scope())
