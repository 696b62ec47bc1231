"""The sealed file: a model with its contract and golden set inside, and a digest over all of it."""

import hashlib
import os
import re
import shlex
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kedge_runtime import containers
from kedge_runtime.contract import Contract
from kedge_runtime.errors import ArtefactError, reason_of
from kedge_runtime.golden import Golden
from kedge_runtime.results import BACKGROUND

CONTRACT = "kedge/contract.json"
GOLDEN = "kedge/golden.npz"
# Where other programs look for the classes' names, by format; ONNX has no such place.
LABELS = {"tflite": "labels.txt"}

# What a training program writes; `kedge convert` makes artefacts of it.
MODELS = (".keras", ".h5", ".hdf5", ".json", ".pb")
# What follows the name of a file that missed its limits.
REJECTED = ".rejected"
_MISSED = (
    "missed a limit of `kedge convert`, whose last lines say which: convert it again, or copy it "
    "to a name without .rejected to look into it"
)

_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Artefact:
    """A sealed file whose digest held when it was read."""

    path: Path
    contract: Contract
    golden: Golden
    digest: str


def seal(
    form: str,
    model: bytes,
    contract: Contract,
    golden: Golden,
    others: Mapping[str, bytes] | None = None,
) -> bytes:
    """Return the bytes of a sealed file; `form` is a key of `containers.FORMATS`.

    `others`: members that other programs put behind the model (`containers.split`).
    """
    members = {**(others or {}), CONTRACT: contract.to_json().encode(), GOLDEN: golden.to_bytes()}
    if form in LABELS and contract.labels:
        members[LABELS[form]] = _lines(contract)
    return containers.append(form, model, members)


def _lines(contract: Contract) -> bytes:
    """Return the name of each output's class on a line of its own."""
    classes = (BACKGROUND,) * contract.output.label_offset + contract.labels
    return "".join(" ".join(label.name.split()) + "\n" for label in classes).encode()


def read_artefact(path: Path, form: str | None = None) -> Artefact:
    """Check the digest, then read contract and golden set; `form` where the suffix doesn't tell.

    Raises ArtefactError when the file is missing, of another format, unsealed, or changed since.
    """
    form = form or format_of(path)
    try:
        with _told(path):
            stated = _check_digest(path)
            members = containers.FORMATS[form].read(path)
        contract, golden = members[CONTRACT], members[GOLDEN]
    except (KeyError, IndexError, ValueError, zipfile.BadZipFile) as error:
        raise ArtefactError(
            f"{path}: no readable contract in it ({error}); convert again"
        ) from None
    return Artefact(path, Contract.from_json(contract), Golden.from_bytes(golden), stated)


def is_sealed(path: Path) -> bool:
    """Whether the file ends in a digest; if it holds is another question. Raises ArtefactError."""
    with _told(path), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - containers.DIGEST_BYTES))
        return _DIGEST.fullmatch(file.read()) is not None


def format_of(path: Path) -> str:
    """Return `tflite` or `onnx` by the file's suffix.

    Raises ArtefactError for any other, and for a file that isn't there or can't be looked at.
    """
    form = path.suffix.lower().lstrip(".")
    if form not in containers.FORMATS:
        raise ArtefactError(f"{path}: {_no_artefact(path)}")
    with _told(path):
        there = path.is_file()
    if not there:
        raise ArtefactError(f"{path}: no such file{_rejected(path)}")
    return form


def _no_artefact(path: Path) -> str:
    """Return what to do with a file that convert takes or has rejected, else what is allowed."""
    with _told(path):
        is_folder = (path / "saved_model.pb").is_file()
        if is_folder or (path.suffix.lower() in MODELS and path.exists()):
            command = shlex.join(["kedge", "convert", str(path)])
            return f"a model that isn't converted yet: `{command}` makes artefacts of it"
        if path.name.endswith(REJECTED) and path.is_file():
            return _MISSED
    return f"artefacts end in {', '.join('.' + name for name in containers.FORMATS)}"


def _rejected(path: Path) -> str:
    """Return what to do where `kedge convert` left the file rejected, "" where it didn't."""
    other = path.with_name(path.name + REJECTED)
    with _told(path):
        return f"; {other.name} beside it {_MISSED}" if other.is_file() else ""


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what the system says of a file into an ArtefactError."""
    try:
        yield
    except OSError as error:
        raise ArtefactError(f"{path}: {reason_of(error)}") from None


def _check_digest(path: Path) -> str:
    length = path.stat().st_size - containers.DIGEST_BYTES
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        for at in range(0, max(length, 0), _CHUNK):
            hasher.update(file.read(min(_CHUNK, length - at)))
        stated = file.read()
    if not _DIGEST.fullmatch(stated):
        raise ArtefactError(
            f"{path}: carries no kedge seal: cut short (copy it again), or not made by "
            "`kedge convert` (`kedge seal` gives it one; classify and bench take --contract)"
        )
    if stated != b"sha256:" + hasher.hexdigest().encode():
        raise ArtefactError(f"{path}: changed since it was sealed; copy it again, or convert again")
    return stated.decode()
