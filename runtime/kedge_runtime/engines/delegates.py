"""Delegates: shared libraries that take work off LiteRT, such as the Edge TPU's.

One grammar: `edgetpu[:usb|pci|N]`, or the path (or system name) of any delegate's library.
"""

import ctypes
import re
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from kedge_runtime.errors import EngineError, UsageError, one_line

# Names given by Coral's documentation, by sys.platform.
EDGETPU_LIBRARIES = {"darwin": "libedgetpu.1.dylib", "win32": "edgetpu.dll"}
EDGETPU_LIBRARY = EDGETPU_LIBRARIES.get(sys.platform, "libedgetpu.so.1")
EDGETPU_INSTALL = (
    "install Coral's Edge TPU runtime (Debian: apt install libedgetpu1-std, "
    "from Coral's package repository)"
)

_EDGETPU = re.compile(r"edgetpu(?::(?:(usb|pci)|(\d+)))?")
_VERBS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")


@dataclass(frozen=True)
class Delegate:
    """A shared library, the options it is created with, and what to do when it isn't there."""

    library: str
    options: dict[str, str] = field(default_factory=dict)
    install: str = "give edgetpu[:usb|pci|N] or the path of a delegate's shared library"


def parse_delegate(text: str) -> Delegate:
    """Read the grammar. The N-th Edge TPU counts from 0. Raises UsageError for a wrong device."""
    if not text.startswith("edgetpu") or "." in text:
        return Delegate(text)
    if not (found := _EDGETPU.fullmatch(text)):
        raise UsageError(f"delegate is {text!r}, an Edge TPU is edgetpu, edgetpu:usb, :pci or :N")
    kind, number = found.groups()
    device = kind or (f":{number}" if number else "")
    return Delegate(EDGETPU_LIBRARY, {"device": device} if device else {}, EDGETPU_INSTALL)


def load_delegate(litert: ModuleType, text: str) -> Any:
    """Return LiteRT's handle of a delegate. Raises EngineError with the cause and the cure."""
    delegate = parse_delegate(text)
    _probe(delegate)
    try:
        return litert.load_delegate(delegate.library, delegate.options)
    except ValueError as error:
        reason = one_line(error).removeprefix(f"Failed to load delegate from {delegate.library}")
        raise EngineError(
            f"the delegate {text} finds no device it can use:"
            f"{reason or ' no reason given'}; is it plugged in, and may you open it?"
        ) from None


def _probe(delegate: Delegate) -> None:
    """Load the library apart: LiteRT's own failure leaves a half-made object that complains."""
    try:
        library = ctypes.CDLL(delegate.library)
    except OSError as error:
        reason = one_line(error)
        raise EngineError(
            f"the delegate's library can't be loaded ({reason}): {delegate.install}"
        ) from None
    if missing := [verb for verb in _VERBS if not hasattr(library, verb)]:
        raise EngineError(f"{delegate.library} is no LiteRT delegate: it has no {missing[0]}")
