"""The float original, where there is a converter to run it."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from kedge_runtime.artefact import Artefact
from kedge_runtime.containers import FORMATS
from kedge_runtime.drift.intervals import Indices
from kedge_runtime.drift.reference import SUFFIX

# By name, like the commands: a device compares with a reference and never imports the converter.
CONVERTER = "kedge_convert.drift"


@dataclass(frozen=True)
class Original:
    """What the user calls the original, and an artefact made from it, which says how it was fed.

    `model`: a card's name, demo, a model's file, or another artefact. `weights`: for a card,
    imagenet or a file.
    """

    model: str
    weights: str
    artefact: Artefact

    @property
    def is_recorded(self) -> bool:
        """Whether it is a reference, and no model."""
        return is_reference(self.model)


@dataclass(frozen=True)
class Sample:
    """Pictures, and the true class of each as an index of the labels, int64 [n], or None."""

    pictures: tuple[Path, ...]
    truth: Indices | None


def is_reference(name: str) -> bool:
    """Whether what the user calls the original is a reference by its name, in any case."""
    return name.lower().endswith(SUFFIX)


def is_artefact(name: str) -> bool:
    """Whether what the user calls the original is another artefact, by its name."""
    return Path(name).suffix.lower().lstrip(".") in FORMATS


def converter() -> Any:
    """Return the converter's half of drift: `record` and `attribute`."""
    return import_module(CONVERTER)
