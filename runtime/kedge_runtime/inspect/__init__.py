"""What is inside a model file, sealed or not, read without any engine: `kedge inspect`.

Formats are twins with one verb, `read(content) -> Network`.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedge_runtime.content import ModelContent
from kedge_runtime.errors import ArtefactError

if TYPE_CHECKING:
    from kedge_runtime.inspect.network import Network, Operator, Scales, Value
    from kedge_runtime.inspect.summary import Summary, summarise

__all__ = ["Network", "Operator", "Scales", "Summary", "Value", "read_network", "summarise"]

# Imported when asked for: whoever opens an engine needs the check of this package alone.
_HOMES = {
    **dict.fromkeys(("Network", "Operator", "Scales", "Value"), "network"),
    **dict.fromkeys(("Summary", "summarise"), "summary"),
}
# What reading, and computing with, numbers of damaged bytes raises.
FAULTS = (ValueError, LookupError, TypeError, ArithmeticError, struct.error)


def __getattr__(name: str) -> Any:
    """Import what __all__ lists. Raises AttributeError for other names."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def read_network(content: ModelContent) -> "Network":
    """Read the graph of a .tflite or .onnx model. Raises ArtefactError for other bytes."""
    with readable(content.path):
        reader = import_module(f"{__name__}.{content.format}")
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
