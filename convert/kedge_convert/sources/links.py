"""Files under the names that tell Keras what they are: it goes by their ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kedge_runtime.files import temporary_folder


@contextmanager
def called(path: Path, name: str) -> Iterator[Path]:
    """Yield a link to a file, called `name`."""
    with temporary_folder() as folder:
        link = folder / name
        link.symlink_to(path.resolve())
        yield link
