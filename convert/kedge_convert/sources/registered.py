"""Functions of ours that Keras finds in any configuration."""

from typing import Any

from kedge_convert.toolkit import require

PACKAGE = "kedge"


def registered(thing: Any) -> Any:
    """Return a function of ours, which Keras can save and load from now on."""
    saving = require("keras").saving
    if saving.get_registered_object(f"{PACKAGE}>{thing.__name__}") is None:
        saving.register_keras_serializable(PACKAGE)(thing)
    return thing
