"""A model file's bytes, read once: what is digested, looked into and run are the same bytes.

A path is opened no second time. Who replaces the file meanwhile, by a copy over it or by a rename,
changes neither the answers nor what a digest was computed of.
"""

import errno
import hashlib
import io
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kedge_runtime.errors import ArtefactError, reason_of

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust

FORMATS = ("tflite", "onnx")
# What a training program writes; `kedge convert` makes artefacts of it.
MODELS = (".keras", ".h5", ".hdf5", ".json", ".pb")
# What follows the name of a file that missed its limits.
REJECTED = ".rejected"
# FlatBuffers and Protocol Buffers end at 2 GiB.
MAX_BYTES = 2 << 30
_MISSED = (
    "missed a limit of `kedge convert`, whose last lines say which: convert it again, or copy it "
    "to a name without .rejected to look into it"
)


def digest(content: bytes | memoryview) -> bytes:
    """Return `sha256:` and 64 hex digits: 71 bytes of ASCII."""
    return b"sha256:" + hashlib.sha256(content).hexdigest().encode()


DIGEST_BYTES = len(digest(b""))


@dataclass(frozen=True)
class ModelContent:
    """The bytes of a .tflite or .onnx file, with what its archive or seal adds.

    `path`: the file as the user names it, for messages: a zip's where it came out of one.
    `format`: `tflite` or `onnx`.
    """

    path: Path
    format: str
    data: bytes = field(repr=False)

    @cached_property
    def digest(self) -> str:
        """Compute the digest that a sealed file ends in: of every byte before the last 71."""
        return digest(memoryview(self.data)[:-DIGEST_BYTES]).decode()

    @property
    def sealed(self) -> bool:
        """Whether the file ends in the right digest."""
        return self.data[-DIGEST_BYTES:] == self.digest.encode()


def read_content(path: Path, form: str | None = None, trust: "Trust | None" = None) -> ModelContent:
    """Read a file whole; `form` is its format where the suffix doesn't tell.

    `trust`: the signature that is demanded, checked before anything looks into the bytes. Raises
    ArtefactError for another format, and a file that is missing, unreadable or too large;
    SignatureError.
    """
    form = form or format_of(path)
    with told(path), open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            stated = f"{size} bytes, allowed are {MAX_BYTES}"
            raise ArtefactError(f"{path}: {stated}; no .{form} file is that large")
        content = ModelContent(path, form, file.readall())
    if trust is not None:
        trust.check(content)
    return content


def open_plain(path: Path) -> io.FileIO:
    """Open a file to read, unbuffered. Raises OSError, also for a pipe, which may stay silent."""
    # Without waiting for a pipe's other end: what it is may change after a look at its name.
    file = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.ESPIPE, "a pipe, a socket or a device; give a file", str(path))
    return file


def trust_of(key: str | Path | None, min_serial: int) -> "Trust | None":
    """Return what a public key's file and a lowest serial number demand, None for neither.

    Raises UsageError for a file that holds no such key, and for a serial number alone.
    """
    if key is None and not min_serial:
        return None
    # With a key only: a device without one pays nothing for it.
    from kedge_runtime.artefact.signing import trust_in

    return trust_in(key, min_serial)


def format_of(path: Path) -> str:
    """Return `tflite` or `onnx` by the file's suffix.

    Raises ArtefactError for any other, and for a file that isn't there or can't be looked at.
    """
    form = path.suffix.lower().lstrip(".")
    if form not in FORMATS:
        raise ArtefactError(f"{path}: {_no_artefact(path)}")
    with told(path):
        there = path.is_file()
    if not there:
        raise ArtefactError(f"{path}: no such file{_rejected(path)}")
    return form


def _no_artefact(path: Path) -> str:
    """Return what to do with a file that convert takes or has rejected, else what is allowed."""
    with told(path):
        is_folder = (path / "saved_model.pb").is_file()
        if is_folder or (path.suffix.lower() in MODELS and path.exists()):
            command = shlex.join(["kedge", "convert", str(path)])
            return f"a model that isn't converted yet: `{command}` makes artefacts of it"
        if path.name.endswith(REJECTED) and path.is_file():
            return _MISSED
    return f"artefacts end in {', '.join('.' + name for name in FORMATS)}"


def _rejected(path: Path) -> str:
    """Return what to do where `kedge convert` left the file rejected, "" where it didn't."""
    other = path.with_name(path.name + REJECTED)
    with told(path):
        return f"; {other.name} beside it {_MISSED}" if other.is_file() else ""


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what the system says of a file into an ArtefactError."""
    try:
        yield
    except OSError as error:
        raise ArtefactError(f"{path}: {reason_of(error)}") from None
