"""Keras models that are built as their files say, without what only training needs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from kedge_convert.toolkit import require

# What takes the place of the author's own: weights are loaded, and nothing is trained.
_IN_PLACE = {"constraints": None, "initializers": "zeros", "regularizers": None}


@contextmanager
def for_inference() -> Iterator[None]:
    """Have Keras 3 build models without what serves training only and may be their author's.

    Losses, metrics and optimisers are never built: `compile=False` speaks for the outermost model
    alone, and an optimiser may be another backend's. Of initialisers, regularisers and
    constraints, only Keras's own are.
    """
    with ExitStack() as stack:
        # Not all that builds models from configurations sets it: layers then read files.
        stack.enter_context(require("keras.src.saving.serialization_lib").SafeModeScope(True))
        stack.enter_context(_replaced(require("keras").Model, "compile_from_config", _left))
        for name, instead in _IN_PLACE.items():
            # Keras's layers call `get` of these modules, and not of keras.initializers.
            module = require(f"keras.src.{name}")
            stack.enter_context(_replaced(module, "get", _get(module.get, instead)))
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def _left(model: Any, config: Any) -> None:
    """Leave a model as it was built."""


def _get(of_keras: Callable[[Any], Any], instead: str | None) -> Callable[[Any], Any]:
    """Return Keras's `get`, which takes `instead` for what isn't Keras's."""
    return lambda identifier: of_keras(instead if _is_own(identifier) else identifier)


def _is_own(identifier: Any) -> bool:
    """Whether a configuration names a class or function of its author's own."""
    if not isinstance(identifier, dict):
        return False
    is_registered = ">" in str(identifier.get("registered_name"))
    return is_registered or str(identifier.get("module", "keras")).split(".")[0] != "keras"
