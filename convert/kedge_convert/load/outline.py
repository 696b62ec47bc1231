"""Read what a model file's configuration tells, without TensorFlow: input, classes, normalisation.

Of a Keras file only the configuration is read, JSON, in well under a second.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedge_convert.load.configuration import is_hdf5
from kedge_convert.toolkit import require
from kedge_runtime.modelfile.archives import FAULTS, opened

# Classes of layers, of Keras 2 and 3, that may change the numbers of a pixel by constants.
_ARITHMETIC = frozenset(
    {"Add", "Divide", "GetItem", "Multiply", "Normalization", "Rescaling", "SlicingOpLambda"}
    | {"Subtract", "TFOpLambda", "TrueDivide", "Lambda", "Resizing"}
)
# Layers with weights before which every normalisation of pixels lies.
_WEIGHED = frozenset(
    {"BatchNormalization", "Conv2D", "Dense", "DepthwiseConv2D", "QuantizeWrapperV2"}
    | {"PruneLowMagnitude", "SeparableConv2D", "LayerNormalization", "QuantizeLayer"}
)


@dataclass(frozen=True)
class Outline:
    """The facts in a configuration; None where it leaves them open.

    `shape`: the input's, without the batch; `outputs`: the number of classes; `bare`: it certainly
    has no normalisation of its own; `sized`: it may resize images itself.
    """

    shape: tuple[int | None, ...] | None = None
    outputs: int | None = None
    bare: bool = False
    sized: bool = True


def outline(path: Path) -> Outline:
    """Return the outline of a model's file; a graph has no layer that resizes."""
    if path.is_dir() or path.suffix == ".pb":
        return Outline(sized=False)
    layers = list(_layers(_configuration(path)))
    kinds = [str(layer.get("class_name")) for layer in layers]
    first = next((i for i, kind in enumerate(kinds) if kind in _WEIGHED), None)
    if first is None:
        return Outline()
    dense = [layer for layer in layers if layer.get("class_name") == "Dense"]
    # The last layer alone: layers behind a Dense may change the number of outputs.
    last = dense[-1:] if kinds[-1] in ("Dense", "Activation", "Softmax", "Dropout") else []
    units = last[0]["config"].get("units") if last else None
    return Outline(
        shape=_shape(layers[: first + 1]),
        outputs=units if isinstance(units, int) else None,
        sized="Resizing" in kinds[:first],
        bare=not _ARITHMETIC.intersection(kinds[:first]) and _is_plain(kinds[:first]),
    )


def _is_plain(kinds: list[str]) -> bool:
    """Whether nothing before the first weights is of a class that could hold more."""
    known = ("InputLayer", "ZeroPadding2D", "Rand", "Gaussian", "Dropout", "Reshape", "Flatten")
    return all(kind.startswith(known) for kind in kinds)


def _shape(layers: list[dict[str, Any]]) -> tuple[int | None, ...] | None:
    for layer in layers:
        config = layer.get("config")
        if isinstance(config, dict):
            shape = config.get("batch_input_shape") or config.get("batch_shape")
            if isinstance(shape, list) and shape:
                return tuple(shape[1:])
    return None


def _layers(config: Any) -> Iterator[dict[str, Any]]:
    """Yield the layers that are no models themselves, in the order of the file."""
    inner = config.get("config") if isinstance(config, dict) else None
    layers = inner.get("layers") if isinstance(inner, dict) else inner
    if isinstance(layers, list):
        for layer in layers:
            yield from _layers(layer)
    elif isinstance(config, dict) and isinstance(inner, dict):
        yield config


def _configuration(path: Path) -> Any:
    """Return a file's configuration, None where it has no readable one."""
    try:
        if is_hdf5(path):
            with require("h5py").File(path) as file:
                return json.loads(file.attrs["model_config"])
        if path.suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        with opened(path) as archive:
            return json.loads(archive.read("config.json"))
    # The loader says what is wrong with a file.
    except (KeyError, OSError, RecursionError, *FAULTS):
        return None
