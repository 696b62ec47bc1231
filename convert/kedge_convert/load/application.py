"""Build Keras applications from their cards, and load the demo."""

import contextlib
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

from kedge_convert.load import keras_file, weights_file
from kedge_convert.load.request import LoadedModel, SourceFacts, SourceRequest
from kedge_convert.toolkit import require
from kedge_models.cards import Card, card
from kedge_models.demo import shapes
from kedge_runtime.errors import UsageError
from kedge_runtime.image.pipelines import NORMALISATIONS, PIPELINES


class AbsentError(UsageError):
    """Weights that are not in Keras's cache, and can't be downloaded from here."""


def cache_folder() -> Path:
    """Return the folder of Keras's downloaded weights."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"


def build(card: Card, weights: str) -> Any:
    """Return the application with `imagenet` weights, downloaded by Keras, or with a file's.

    Raises AbsentError when the download fails, and UsageError when the file doesn't fit.
    """
    keras = require("keras")
    # MobileNetV3 has no size of its own in Keras 3; for the others this is their default.
    application = partial(
        getattr(keras.applications, card.application), input_shape=(card.size, card.size, 3)
    )
    if weights == "imagenet":
        return _download(application, card)
    model = application(weights=None, **card.arguments)
    weights_file.load_into(model, Path(weights), card.name)
    return model


def _download(application: Any, card: Card) -> Any:
    try:
        # Keras draws its own progress bar, on stdout: that belongs to the result.
        with contextlib.redirect_stdout(sys.stderr):
            return application(weights="imagenet", **card.arguments)
    except Exception as error:
        match = re.search(r"[\w.-]+\.(?:h5|keras)\b", str(error))
        # A cache that can't be written to is named without the file.
        if not match and not isinstance(error, OSError):
            raise
        file = match.group() if match else "their file"
        raise AbsentError(
            f"the ImageNet weights can't be downloaded: put {file} into {cache_folder()}, or give "
            "--weights FILE, or try `kedge convert demo`"
        ) from error


DEMO = "demo"


def load(request: SourceRequest) -> LoadedModel:
    """Return the demo, or a card's application."""
    if request.model == DEMO:
        facts = SourceFacts("", PIPELINES["imagenet"], NORMALISATIONS["tf"], shapes.LABELS)
        return LoadedModel(DEMO, keras_file.load_file(shapes.MODEL), facts)
    description = card(request.model)
    model = build(description, request.weights)
    return LoadedModel(description.name.lower(), model, SourceFacts.of(description))
