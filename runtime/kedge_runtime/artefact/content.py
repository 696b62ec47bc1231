"""Read a model file once: the digest, the checks and the engine get the same bytes.

No path is opened twice. So a file that is replaced meanwhile, by a copy over it or by a rename,
changes neither the results nor the bytes that a digest covers.
"""

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kedge_runtime.errors import ArtefactError, reason_of
from kedge_runtime.frozen import dataclass
from kedge_runtime.sha256 import sha256

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust

FORMATS = ("tflite", "onnx")
# Files of training programs, which `kedge convert` takes.
MODELS = (".keras", ".h5", ".hdf5", ".json", ".pb")
# Added to the name of a file that missed a limit.
REJECTED = ".rejected"
# FlatBuffers and Protocol Buffers allow no more than 2 GiB.
MAX_BYTES = 2 << 30
_MISSED = (
    "missed a limit of `kedge convert`, whose last lines say which: convert it again, or copy it "
    "to a name without .rejected to look into it"
)


Part = bytes | memoryview
# A sealed file as it is written: the model in place, which may have 2 GiB, and what lies behind it.
SealedParts = tuple[Part, bytes]


def digest(content: Part, *behind: Part) -> bytes:
    """Return `sha256:` and 64 hex digits, 71 bytes of ASCII, for parts that follow each other."""
    hasher = sha256(content)
    for part in behind:
        hasher.update(part)
    return b"sha256:" + hasher.hexdigest().encode()


DIGEST_BYTES = len(digest(b""))


@dataclass(frozen=True)
class ModelContent:
    """The bytes of a .tflite or .onnx file, its archive and seal included.

    `path`: the file as the user names it, for messages: a zip's where it came out of one.
    `format`: `tflite` or `onnx`.
    """

    path: Path
    format: str
    data: bytes = field(repr=False)

    @cached_property
    def digest(self) -> str:
        """The digest of every byte before the last 71, in which a sealed file ends."""
        return digest(memoryview(self.data)[:-DIGEST_BYTES]).decode()

    @property
    def sealed(self) -> bool:
        """Whether the file ends in the right digest."""
        return self.data[-DIGEST_BYTES:] == self.digest.encode()


def read_content(
    path: Path, format: str | None = None, trust: "Trust | None" = None
) -> ModelContent:
    """Read a whole file; `format`: for a file whose suffix does not state it.

    `trust`: the required signature, checked before anything parses the bytes. Raises ArtefactError
    for another format, and for a file that is missing, unreadable or too large; SignatureError.
    """
    format = format or format_of(path)
    with file_errors(path), open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            stated = f"{size} bytes, allowed are {MAX_BYTES}"
            raise ArtefactError(f"{path}: {stated}; no .{format} file is that large")
        content = ModelContent(path, format, file.readall())
    if trust is not None:
        trust.check(content)
    return content


def open_plain(path: Path) -> io.FileIO:
    """Open a file to read, unbuffered. Raises OSError, also for a pipe, a socket or a device."""
    # Opened first, then examined: a name may change its meaning. A pipe must not block.
    file = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.ESPIPE, "a pipe, a socket or a device; give a file", str(path))
    return file


def trust_of(key: "str | os.PathLike[str] | None", min_serial: int) -> "Trust | None":
    """Return the signature that a public key's file and a lowest serial number require, or None.

    Raises UsageError for a file that holds no such key, and for a serial number alone.
    """
    if key is None and not min_serial:
        return None
    # Imported here: a device without a key pays nothing for it.
    from kedge_runtime.artefact.signing import trust_in

    return trust_in(key, min_serial)


def format_of(path: Path) -> str:
    """Return `tflite` or `onnx` by the file's suffix.

    Raises ArtefactError for another suffix, and for a file that is missing or unreadable.
    """
    format = path.suffix.lower().lstrip(".")
    if format not in FORMATS:
        raise ArtefactError(f"{path}: {_no_artefact(path)}")
    with file_errors(path):
        exists = path.is_file()
    if not exists:
        raise ArtefactError(f"{path}: no such file{_rejected(path)}")
    return format


def _no_artefact(path: Path) -> str:
    """Return advice on a file that convert takes or has rejected, else the allowed suffixes."""
    with file_errors(path):
        is_folder = (path / "saved_model.pb").is_file()
        if is_folder or (path.suffix.lower() in MODELS and path.exists()):
            import shlex

            command = shlex.join(["kedge", "convert", str(path)])
            return f"a model that isn't converted yet: `{command}` makes artefacts of it"
        if path.name.endswith(REJECTED) and path.is_file():
            return _MISSED
    return f"artefacts end in {', '.join('.' + name for name in FORMATS)}"


def _rejected(path: Path) -> str:
    """Return the advice where `kedge convert` rejected the file, else ""."""
    other = path.with_name(path.name + REJECTED)
    with file_errors(path):
        return f"; {other.name} beside it {_MISSED}" if other.is_file() else ""


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn the block's OSErrors into ArtefactErrors about a file."""
    try:
        yield
    except OSError as error:
        raise ArtefactError(f"{path}: {reason_of(error)}") from None
