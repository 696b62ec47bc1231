"""Read the graph of a model file, sealed or not, without any engine.

Each format has a module with `read(content) -> Network`.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.errors import ArtefactError

if TYPE_CHECKING:
    from kedge_runtime.modelfile.network import Network

# The exceptions when damaged bytes are read, and their numbers are used.
FAULTS = (ValueError, LookupError, TypeError, ArithmeticError, struct.error)


def read_network(content: ModelContent) -> "Network":
    """Read the graph of a .tflite or .onnx model. Raises ArtefactError for other bytes."""
    with readable(content.path):
        reader = import_module(f"{__package__}.{content.format}")
        network: Network = reader.read(memoryview(content.data))
        return network


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn the block's FAULTS into ArtefactErrors about a file."""
    try:
        yield
    except FAULTS as error:
        raise ArtefactError(
            f"{path}: no readable {path.suffix} model ({error}); copy it again, or convert again"
        ) from None
