"""What is inside a model file, sealed or not, read without any engine: `kedge inspect`.

Formats are twins with one verb, `read(content) -> Network`.
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

# What reading, and computing with, numbers of damaged bytes raises.
FAULTS = (ValueError, LookupError, TypeError, ArithmeticError, struct.error)


def read_network(content: ModelContent) -> "Network":
    """Read the graph of a .tflite or .onnx model. Raises ArtefactError for other bytes."""
    with readable(content.path):
        reader = import_module(f"{__package__}.{content.format}")
        network: Network = reader.read(memoryview(content.data))
        return network


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise ArtefactError for what its block finds wrong with the bytes of a file."""
    try:
        yield
    except FAULTS as error:
        raise ArtefactError(
            f"{path}: no readable {path.suffix} model ({error}); copy it again, or convert again"
        ) from None
