"""Keras applications built from their cards."""

import re
from pathlib import Path
from typing import Any

from kedge_convert.toolkit import require
from kedge_models import Card
from kedge_runtime.errors import UsageError

CACHE = Path("~/.keras/models").expanduser()


def build(card: Card, weights: str) -> Any:
    """Return the application with `imagenet` weights, downloaded by Keras, or those of a file.

    Raises UsageError when the download or the file fails.
    """
    keras = require("keras")
    application = getattr(keras.applications, card.application)
    if weights == "imagenet":
        return _download(application, card)
    path = Path(weights)
    if not path.is_file():
        raise UsageError(f"--weights: {path}: no such file (or say imagenet)")
    model = application(weights=None, **card.arguments)
    try:
        model.load_weights(path)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"--weights: {path} doesn't fit {card.name}: {reason}") from error
    return model


def _download(application: Any, card: Card) -> Any:
    try:
        # Keras draws its own progress bar.
        return application(weights="imagenet", **card.arguments)
    except Exception as error:
        wanted = re.search(r"[\w.-]+\.(?:h5|keras)\b", str(error))
        if not wanted:
            raise
        raise UsageError(
            f"{card.name}: the ImageNet weights can't be downloaded: put {wanted.group()} into "
            f"{CACHE}, or give --weights FILE, or try `kedge convert demo`"
        ) from error
