"""Models that compute in half or double floats, made to compute in float32.

Mixed precision serves training: no converter takes it, and each target has a precision of its own.
"""

import re
from typing import Any

from kedge_convert.toolkit import quiet, require

# As Keras calls its policies: mixed_float16, bfloat16, int8_from_mixed_bfloat16.
_OTHER_FLOATS = re.compile(r"(mixed_)?b?float(16|64)")


def in_float32(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the model with every layer computing in float32, and what is to be said of it.

    Weights keep their values, except for float64's.
    """
    policies = sorted({each.dtype_policy.name for each in _layers(model) if _differs(each)})
    if not policies:
        return model, ()
    saving = require("keras").saving
    with quiet():
        config = _with_float32(saving.serialize_keras_object(model))
        single = saving.deserialize_keras_object({**config, "compile_config": None})
        single.set_weights(model.get_weights())
    return single, (f"computed in float32 (was {', '.join(policies)})",)


def _layers(model: Any) -> Any:
    """Return the layers, nested ones and those inside wrappers too."""
    return model._flatten_layers()


def _differs(layer: Any) -> bool:
    return bool(_OTHER_FLOATS.search(layer.dtype_policy.name))


def _with_float32(config: Any, of_dtype: bool = False) -> Any:
    """Return a configuration with float32 wherever a `dtype` names another float."""
    if isinstance(config, dict):
        return {k: _with_float32(v, of_dtype or k == "dtype") for k, v in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_with_float32(each, of_dtype) for each in config)
    if of_dtype and isinstance(config, str):
        return _OTHER_FLOATS.sub("float32", config)
    return config
