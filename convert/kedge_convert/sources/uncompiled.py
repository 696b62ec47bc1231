"""Keras models that are built as their files say, without what only training needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kedge_convert.toolkit import require


@contextmanager
def uncompiled() -> Iterator[None]:
    """Have Keras 3 compile no model that it builds, however deeply nested.

    `compile=False` speaks for the outermost model alone. The losses of others may be their
    author's, and the optimisers those of another backend.
    """
    model = require("keras").Model
    kept = model.compile_from_config
    model.compile_from_config = _left
    try:
        yield
    finally:
        model.compile_from_config = kept


def _left(model: Any, config: Any) -> None:
    """Leave a model as it was built."""
