"""Put a Keras model behind another input: of a fixed batch or size, or with a channel axis."""

from collections.abc import Callable
from typing import Any

from kedge_convert.toolkit import require


def behind(
    model: Any, shape: tuple[int | None, ...], change: Callable[[Any], Any] = lambda image: image
) -> Any:
    """Return the model behind an input of `shape`, the batch included, which `change` turns into
    what the model takes. Raises whatever Keras does where the model can't take that.
    """
    keras = require("keras")
    image = keras.Input(batch_shape=shape, name="input")
    return keras.Model(image, model(change(image)), name=model.name)
