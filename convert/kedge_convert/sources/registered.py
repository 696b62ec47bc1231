"""Functions and layers of ours that Keras finds in any configuration."""

from typing import Any

from kedge_convert.toolkit import require

PACKAGE = "kedge"


def registered(thing: Any) -> str:
    """Return the name of a function or class of ours in configurations; once is for ever."""
    saving = require("keras").saving
    name = f"{PACKAGE}>{thing.__name__}"
    if saving.get_registered_object(name) is None:
        saving.register_keras_serializable(PACKAGE)(thing)
    return name
