"""What is inside a model file, sealed or not, read without any engine: `kedge inspect`.

Formats are twins with one verb, `read(content) -> Network`.
"""

import mmap
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kedge_runtime.artefact import format_of
from kedge_runtime.errors import ArtefactError, reason_of
from kedge_runtime.inspect import onnx, tflite
from kedge_runtime.inspect.network import Network, Operator, Scales, Value
from kedge_runtime.inspect.summary import Summary, summarise

__all__ = ["Network", "Operator", "Scales", "Summary", "Value", "read_network", "summarise"]

READERS: dict[str, Callable[[memoryview], Network]] = {"tflite": tflite.read, "onnx": onnx.read}

_FAULTS = (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error)


def read_network(path: Path) -> Network:
    """Read the graph of a .tflite or .onnx file.

    Raises ArtefactError for another format, a missing file, and bytes that are no such model.
    """
    form = format_of(path)
    with readable(path):
        with path.open("rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return READERS[form](content)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise ArtefactError for what its block finds wrong with the bytes of a file."""
    try:
        yield
    except _FAULTS as error:
        raise ArtefactError(
            f"{path}: no readable {path.suffix} model ({error}); copy it again, or convert again"
        ) from None
    except OSError as error:
        raise ArtefactError(f"{path}: {reason_of(error)}") from None
