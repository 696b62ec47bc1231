"""Judge a rebuilt model by the one that tf_keras loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kedge_convert.sources.noise import noise
from kedge_convert.sources.rebuild import Rebuilt
from kedge_convert.toolkit import require

# The largest difference, as a share of the largest answer.
TOLERANCE = 1e-5
IMAGES = 2


def check(original: Any, rebuilt: Rebuilt) -> None:
    """Raise ValueError where a rebuilt model answers noise otherwise than the original does.

    The answers are compared as they are, and a second time without the activation of the last
    layer: a saturated softmax would hide whatever goes wrong before it. Where the last layer is an
    activation without weights that can't be swapped (Softmax), the first comparison decides.
    """
    # Anything but one image in is refused later, by what it is.
    if len(rebuilt.model.inputs) != 1:
        return
    compare(original, rebuilt.model)
    with _linear(rebuilt.last):
        compare(original, rebuilt.model)


def compare(original: Any, model: Any) -> None:
    """Raise ValueError where the answers to noise of two models of one input differ."""
    images, flatten = noise(model, IMAGES), require("keras").tree.flatten
    expected, answers = (flatten(each(images, training=False)) for each in (original, model))
    for wanted, found in zip(map(np.asarray, expected), map(np.asarray, answers), strict=True):
        largest = np.abs(wanted).max()
        difference = np.abs(wanted - found).max()
        if not difference <= TOLERANCE * largest:
            raise ValueError(f"its answers differ by {difference:.1e} of {largest:.1e}")


@contextmanager
def _linear(layers: tuple[Any, ...]) -> Iterator[None]:
    """Switch the activation of both last layers off, where it is a function."""
    activations = [getattr(layer, "activation", None) for layer in layers]
    swapped = [] if any(map(_is_no_function, activations)) else list(layers)
    for layer in swapped:
        layer.activation = _identity
    try:
        yield
    finally:
        for layer, activation in zip(swapped, activations, strict=False):
            layer.activation = activation


def _is_no_function(activation: Any) -> bool:
    return activation is None or hasattr(activation, "get_config")


def _identity(value: Any) -> Any:
    return value
