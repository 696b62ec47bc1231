"""What stands for a layer, as a layer of its name: a new name might be taken."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kedge_convert.toolkit import require


@dataclass(frozen=True)
class Stand:
    """A function of one tensor in plain operators; `layers` are those that it calls."""

    function: Callable[[Any], Any]
    layers: tuple[Any, ...] = ()

    def as_layer(self, name: str) -> Any:
        """Return the Keras layer that calls it. Operators inside of it need no names."""

        class Standing(require("keras").layers.Layer):  # type: ignore[misc]
            def __init__(self, stand: Stand) -> None:
                super().__init__(name=name)
                self.function, self.inner = stand.function, list(stand.layers)

            def call(self, value: Any) -> Any:
                return self.function(value)

        return Standing(self)
