"""Refuse models with weights that are not finite, before anything is compared with them."""

from typing import Any

import numpy as np

from kedge_runtime.errors import UsageError


def refuse_weights(model: Any, name: str = "") -> None:
    """Raise UsageError when a weight is NaN or infinite, even where no answer shows it.

    `name`: what the message begins with, where no caller adds it.
    """
    for weight in model.weights:
        if not np.isfinite(np.asarray(weight)).all():
            start = f"{name}: " if name else ""
            raise UsageError(
                f"{start}the weights {weight.path} are not finite (NaN or infinite): train or "
                "save it again"
            )
