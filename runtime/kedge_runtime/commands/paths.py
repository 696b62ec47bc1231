"""Define the types of options and arguments that are paths.

click's own type looks for a translation of its name, which loads a table of all languages.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


# click's types became generic in 8.3; kedge runs on older ones.
class PlaceType(click.ParamType):  # type: ignore[type-arg]
    """A path of something readable, or without anything yet."""

    name = "path"

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        """Return the path. Fails for a path that leads to what `refusal` names."""
        path = Path(value)
        # A path that nobody can look at is refused where it is used, with its option's remedy.
        with suppress(OSError):
            if reason := self.refusal(path):
                self.fail(reason, param, ctx)
        return path

    def refusal(self, path: Path) -> str:
        """Return why a path can't be taken, or an empty string."""
        if path.exists() and not os.access(path, os.R_OK):
            return f"{click.format_filename(path)} is not readable; allow it, or give another one"
        return ""

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> "list[CompletionItem]":
        """Return what tells the shell to complete a path."""
        from click.shell_completion import CompletionItem  # few calls complete

        return [CompletionItem(incomplete, type="file")]


class FileType(PlaceType):
    """A path of a readable file, or without anything yet."""

    name = "file"

    def refusal(self, path: Path) -> str:
        """Return why a path can't be taken, or an empty string."""
        if path.is_dir():
            return f"{click.format_filename(path)} is a folder; give a file"
        return super().refusal(path)


class FolderType(PlaceType):
    """A path of a readable folder, or without anything yet."""

    def refusal(self, path: Path) -> str:
        """Return why a path can't be taken, or an empty string."""
        if os.path.lexists(path) and not path.is_dir():
            return f"{path} is no folder; give a folder, or a path for a new one"
        return super().refusal(path)


PLACE, FILE, FOLDER = PlaceType(), FileType(), FolderType()
