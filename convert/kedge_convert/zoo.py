"""Keras applications built from their cards."""

import contextlib
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

from kedge_convert.errors import one_line
from kedge_convert.toolkit import require
from kedge_models import Card
from kedge_runtime.errors import UsageError


def cache_folder() -> Path:
    """Return the folder where Keras looks for weights before it downloads them."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"


def build(card: Card, weights: str) -> Any:
    """Return the application with `imagenet` weights, downloaded by Keras, or those of a file.

    Raises UsageError when the download or the file fails.
    """
    keras = require("keras")
    # MobileNetV3 has no size of its own in Keras 3; for the others this is their default.
    application = partial(
        getattr(keras.applications, card.application), input_shape=(card.size, card.size, 3)
    )
    if weights == "imagenet":
        return _download(application, card)
    path = Path(weights)
    if not path.is_file():
        raise UsageError(f"--weights: {path}: no such file (or say imagenet)")
    model = application(weights=None, **card.arguments)
    try:
        model.load_weights(path)
    except Exception as error:
        reason = one_line(error, 300)
        raise UsageError(f"--weights: {path} doesn't fit {card.name}: {reason}") from error
    return model


def _download(application: Any, card: Card) -> Any:
    try:
        # Keras draws its own progress bar, on stdout: that belongs to the answer.
        with contextlib.redirect_stdout(sys.stderr):
            return application(weights="imagenet", **card.arguments)
    except Exception as error:
        wanted = re.search(r"[\w.-]+\.(?:h5|keras)\b", str(error))
        if not wanted:
            raise
        raise UsageError(
            f"{card.name}: the ImageNet weights can't be downloaded: put {wanted.group()} into "
            f"{cache_folder()}, or give --weights FILE, or try `kedge convert demo`"
        ) from error
