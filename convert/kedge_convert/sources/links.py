"""Files under the names that tell Keras what they are: it goes by their ends."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def called(path: Path, name: str) -> Iterator[Path]:
    """Yield a link to a file, called `name`."""
    with tempfile.TemporaryDirectory(prefix="kedge-") as folder:
        link = Path(folder) / name
        link.symlink_to(path.resolve())
        yield link
