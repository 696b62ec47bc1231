"""The names of layers in HDF5 weights of TensorFlow 2.12 to 2.14, as Keras looks for them today."""

import io
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from kedge_convert.toolkit import require

_OLD_LAYERS = "_layer_checkpoint_dependencies"


def today(weights: bytes) -> bytes:
    """Return HDF5 weights under the names that Keras looks for; most files as they are.

    TensorFlow 2.12 called a model's layers something else, and counted those with weights twice:
    dense, dense_2, dense_4.
    """
    if _OLD_LAYERS.encode() not in weights:
        return weights
    h5py, changed = require("h5py"), io.BytesIO()
    with h5py.File(io.BytesIO(weights)) as old, h5py.File(changed, "w") as new:
        _copy(old, new)
    return changed.getvalue()


def _copy(old: Any, new: Any, are_layers: bool = False) -> None:
    """Copy an HDF5 group into another; `are_layers`: its members are the layers of a model."""
    names = _counted(old) if are_layers else {name: name for name in old}
    for name, item in old.items():
        if hasattr(item, "keys"):
            target = "layers" if name == _OLD_LAYERS else names[name]
            _copy(item, new.create_group(target), name in (_OLD_LAYERS, "layers"))
        else:
            old.copy(name, new, names[name])


def _counted(names: Iterable[str]) -> dict[str, str]:
    """Return the names of layers with those of one kind counted without gaps: dense, dense_1."""
    kinds = defaultdict[str, list[tuple[int, str]]](list)
    for name in names:
        kind, _, number = name.rpartition("_")
        kind, number = (kind, number) if number.isdecimal() else (name, "0")
        kinds[kind].append((int(number), name))
    return {
        name: f"{kind}_{i}" if i else kind
        for kind, found in kinds.items()
        for i, (_, name) in enumerate(sorted(found))
    }
