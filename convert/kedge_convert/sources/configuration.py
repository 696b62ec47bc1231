"""Read the configuration of a saved model: in `.h5`, in `.keras`, or in `model.json`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedge_convert.toolkit import require
from kedge_runtime.zips import FAULTS, opened

CONFIG = "config.json"  # its member of a .keras archive


@dataclass(frozen=True)
class Configuration:
    """The JSON by which Keras builds a model (None: there is none), and its Keras version.

    `only_weights`: an HDF5 file that holds weights without a model.
    """

    version: str
    content: Any
    only_weights: bool = False

    @property
    def is_keras_2(self) -> bool:
        """Whether Keras 1 or 2 saved it; only Keras 1 wrote no version."""
        return not self.version.startswith("3")


def of_hdf5(path: Path) -> Configuration:
    """Read an HDF5 file. Raises OSError, RuntimeError and ValueError for damaged ones."""
    with require("h5py").File(path) as file:
        version, content = (file.attrs.get(key) for key in ("keras_version", "model_config"))
        only_weights = "layers" in file or "layer_names" in file.attrs
    parsed = None if content is None else json.loads(_text(content))
    return Configuration(_text(version or "1."), parsed, only_weights)


def of_archive(path: Path) -> Configuration:
    """Read a `.keras` archive; one that is no Keras file counts as Keras 3's, which refuses it."""
    try:
        with opened(path) as archive:
            metadata = json.loads(archive.read("metadata.json"))
            content = json.loads(archive.read(CONFIG))
    except (KeyError, *FAULTS):
        return Configuration("3", None)
    version = metadata.get("keras_version", "3") if isinstance(metadata, dict) else "3"
    return Configuration(str(version), content)


def of_json(path: Path) -> Configuration | None:
    """Read what `model.to_json()` wrote; None for any other file."""
    try:
        with path.open("rb") as file:
            # Any file may be asked about, and be gigabytes.
            begin = file.read(1)
            content = json.loads(begin + file.read()) if begin == b"{" else None
    except (OSError, RecursionError, ValueError):
        return None
    if not isinstance(content, dict) or not {"class_name", "config"} <= set(content):
        return None
    # Keras 3 writes no version there.
    return Configuration(str(content.get("keras_version", "3")), content)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
