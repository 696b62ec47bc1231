"""What is inside a model file, sealed or not, read without any engine: `kedge inspect`.

Formats are twins with one verb, `read(content) -> Network`.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kedge_runtime.content import ModelContent
from kedge_runtime.errors import ArtefactError
from kedge_runtime.inspect import onnx, tflite
from kedge_runtime.inspect.network import Network, Operator, Scales, Value
from kedge_runtime.inspect.summary import Summary, summarise

__all__ = ["Network", "Operator", "Scales", "Summary", "Value", "read_network", "summarise"]

READERS: dict[str, Callable[[memoryview], Network]] = {"tflite": tflite.read, "onnx": onnx.read}

_FAULTS = (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error)


def read_network(content: ModelContent) -> Network:
    """Read the graph of a .tflite or .onnx model. Raises ArtefactError for other bytes."""
    with readable(content.path):
        return READERS[content.format](memoryview(content.data))


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise ArtefactError for what its block finds wrong with the bytes of a file."""
    try:
        yield
    except _FAULTS as error:
        raise ArtefactError(
            f"{path}: no readable {path.suffix} model ({error}); copy it again, or convert again"
        ) from None
