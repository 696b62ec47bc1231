"""Import the frameworks quietly; kedge's own messages go to a copy of stderr."""

import logging
import os
import sys
from contextlib import nullcontext
from importlib import import_module
from types import ModuleType

from kedge_runtime.errors import KedgeError, UsageError, install
from kedge_runtime.output import quiet


class ConversionError(KedgeError):
    """Raised where a toolkit can't express the model, or wrote an invalid file."""

    exit_code = 1


_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}


def require(name: str) -> ModuleType:
    """Import a module of the `convert` extra. Raises UsageError naming the install command."""
    # The TFLite converter reads TensorFlow's graphs, whichever backend the user trains with.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    # TensorFlow keeps the stderr of its first message, which `quiet` may have closed since.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        # A framework's own announcements mean nothing to the user.
        with quiet() if name not in sys.modules else nullcontext():
            return import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} isn't installed: conversions need {install('convert')}"
        ) from None
