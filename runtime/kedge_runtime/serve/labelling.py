"""Move unsure images into one folder for each class, as training and `kedge drift` read them."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kedge_runtime.artefact.contract import Label
from kedge_runtime.errors import ImageError, UsageError, reason_of

# What a folder may be called everywhere; a class with another name gets its id.
_SAFE = re.compile(r"[^/\\\0.][^/\\\0]{0,99}")


@dataclass(frozen=True)
class UnsureLabelling:
    """The folder of unsure images, that of the labelled ones, and the classes."""

    unsure: Path
    labelled: Path
    labels: Sequence[Label]

    def images(self, most: int) -> list[str]:
        """Return the names of the newest unsure images, at most `most`."""
        names = sorted((path.name for path in self.unsure.glob("*.jpg")), reverse=True)
        return [name for name in names if not name.startswith(".")][:most]

    def count(self) -> int:
        """Return the number of unsure images."""
        return sum(1 for path in self.unsure.glob("*.jpg") if not path.name.startswith("."))

    def read(self, name: str) -> bytes:
        """Return an unsure image. Raises ImageError for a name that isn't one."""
        try:
            return self._path(name).read_bytes()
        except OSError as error:
            raise ImageError(f"{name}: {reason_of(error)}") from None

    def label(self, name: str, label: str) -> Path:
        """Move an image into the folder of a label's id; return its new path.

        Raises ImageError for a name that is no unsure image, UsageError for no label of the model
        and for a folder that can't be written.
        """
        found = next((each for each in self.labels if each.id == label), None)
        if found is None:
            raise UsageError(f"label {label!r}: the model has no such class")
        path, target = self._path(name), self.labelled / folder_name(found) / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # A link first: an image of that name that is there already must not be replaced.
            os.link(path, target)
            path.unlink()
        except FileNotFoundError:
            raise ImageError(f"{name}: no such image; it may be labelled already") from None
        except OSError as error:
            raise UsageError(f"{target}: can't be written ({reason_of(error)})") from None
        return target

    def discard(self, name: str) -> None:
        """Remove an unsure image. Raises ImageError for a name that isn't one."""
        try:
            self._path(name).unlink()
        except OSError as error:
            raise ImageError(f"{name}: {reason_of(error)}") from None

    def _path(self, name: str) -> Path:
        """Return the path of an unsure image: no link, and nothing outside the folder."""
        path = self.unsure / name
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.jpg", name) or path.is_symlink():
            raise ImageError("no such image")
        return path


def folder_name(label: Label) -> str:
    """Return the folder's name of a class: its name, or its id where no folder can be called so."""
    for name in (label.name, label.id):
        if _SAFE.fullmatch(name):
            return name
    return "".join(char if char.isalnum() else "_" for char in label.id) or "_"
