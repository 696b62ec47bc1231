"""Write and read sealed files: a model with its contract and golden set, and a digest of it all.

The golden set is a few images with the float model's outputs. With it a device verifies, without
TensorFlow, that its decoder, its preprocessing and its engine reproduce the converter's results.
"""

import io
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.artefact import containers
from kedge_runtime.artefact.content import (
    DIGEST_BYTES,
    ModelContent,
    file_errors,
    open_plain,
    read_content,
)
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.classify.results import BACKGROUND
from kedge_runtime.errors import ArtefactError, about
from kedge_runtime.modelfile.archives import read_arrays

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust


@dataclass(frozen=True)
class Golden:
    """One row per image, so that each step of a classification can be checked by itself.

    `images`: n encoded images. `pixels`, `tensors`: uint8 [n, 32], SHA-256 of the decoded pixels
    and of the preprocessed input. `reference`: float32 [n, classes], the float model's logits.
    `recorded`: float32 [n, classes], this artefact's own outputs when it was made. `exact`: the
    same as raw integers from the engine's reference kernels, [n, classes], or [0, 0] where the
    engine has none. `ids`: str [n], the label of each top class. `confidence`: float32 [n], its
    probability, 0..1, when `recorded` is scaled to a spread of 1.
    """

    images: tuple[bytes, ...]
    pixels: NDArray[np.uint8]
    tensors: NDArray[np.uint8]
    reference: NDArray[np.float32]
    recorded: NDArray[np.float32]
    exact: NDArray[Any]
    ids: NDArray[np.str_]
    confidence: NDArray[np.float32]

    @classmethod
    def none(cls) -> "Golden":
        """Return an empty set, for files that aren't sealed."""
        digests, rows = np.zeros((0, 32), np.uint8), np.zeros((0, 0), np.float32)
        nothing = np.zeros(0, np.float32)
        return cls((), digests, digests, rows, rows, rows, np.zeros(0, np.str_), nothing)

    def to_bytes(self) -> bytes:
        """Return an .npz archive; the same set gives the same bytes."""
        file = io.BytesIO()
        images = {f"image_{i}": np.frombuffer(b, np.uint8) for i, b in enumerate(self.images)}
        np.savez_compressed(file, **images, **{name: getattr(self, name) for name in _ARRAYS})  # type: ignore[arg-type]
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Golden":
        """Read what `to_bytes` wrote. Raises ArtefactError when it is anything else."""
        with about("the golden set is damaged"):
            arrays = read_arrays(content)
        try:
            fields = [arrays[name] for name in _ARRAYS]
            images = tuple(arrays[f"image_{i}"].tobytes() for i in range(len(arrays["tensors"])))
        except (KeyError, TypeError) as error:
            raise ArtefactError(f"the golden set is damaged ({error}); convert again") from None
        return _check(cls(images, *fields))


_ARRAYS = tuple(field.name for field in fields(Golden) if field.name != "images")
# Name -> numpy's kind and the number of dimensions; a row per image, but for `exact`.
_SHAPES = {
    "pixels": ("u", 2),
    "tensors": ("u", 2),
    "reference": ("f", 2),
    "recorded": ("f", 2),
    "exact": ("iuf", 2),
    "ids": ("U", 1),
    "confidence": ("f", 1),
}


def _check(golden: Golden) -> Golden:
    for name, (kinds, dimensions) in _SHAPES.items():
        array = getattr(golden, name)
        right = array.dtype.kind in kinds and array.ndim == dimensions
        rows = name == "exact" or array.shape[:1] == (len(golden.images),)
        if not (right and rows and (array.dtype.kind != "f" or np.isfinite(array).all())):
            raise ArtefactError(
                f"the golden set is damaged ({name} is {array.dtype} {array.shape}, "
                f"for {len(golden.images)} images); convert again"
            )
    return golden


CONTRACT = "kedge/contract.json"
GOLDEN = "kedge/golden.npz"
# Format -> the member where other programs look for class names; ONNX has none.
LABELS = {"tflite": "labels.txt"}

_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Artefact:
    """A sealed file whose digest held when it was read."""

    path: Path
    contract: Contract
    golden: Golden
    digest: str


def seal(
    format: str,
    model: bytes,
    contract: Contract,
    golden: Golden,
    others: Mapping[str, bytes] | None = None,
) -> bytes:
    """Return the bytes of a sealed file; `format`: a key of `containers.FORMATS`.

    `others`: members that other programs put behind the model (`containers.split`).
    """
    # Python's escape for a byte of a name that is no UTF-8 is JSON's, too.
    text = contract.to_json().encode(errors="backslashreplace")
    members = {**(others or {}), CONTRACT: text, GOLDEN: golden.to_bytes()}
    if format in LABELS and contract.labels:
        members[LABELS[format]] = _lines(contract)
    return containers.append(format, model, members)


def _lines(contract: Contract) -> bytes:
    """Return the class names in the order of the output, one per line."""
    classes = (BACKGROUND,) * contract.output.label_offset + contract.labels
    return "".join(" ".join(label.name.split()) + "\n" for label in classes).encode()


def read_artefact(path: Path, format: str | None = None, trust: "Trust | None" = None) -> Artefact:
    """Read a sealed file; `format`: for a file whose suffix does not state it.

    `trust`: the required signature. Raises ArtefactError when the file is missing, of
    another format, unsealed, or changed since.
    """
    return artefact_of(read_content(path, format, trust))


def artefact_of(content: ModelContent) -> Artefact:
    """Check the digest, then read the contract and the golden set.

    Raises ArtefactError when the bytes are unsealed, or changed since.
    """
    stated = _check_digest(content)
    try:
        members = containers.FORMATS[content.format].read(content)
        contract, golden = members[CONTRACT], members[GOLDEN]
    except (KeyError, IndexError, ValueError, zipfile.BadZipFile) as error:
        raise ArtefactError(
            f"{content.path}: no readable contract in it ({error}); convert again"
        ) from None
    return Artefact(content.path, Contract.from_json(contract), Golden.from_bytes(golden), stated)


def is_sealed(path: Path) -> bool:
    """Return whether a file ends in a digest, right or wrong. Raises ArtefactError."""
    with file_errors(path), open_plain(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - DIGEST_BYTES))
        return ends_in_digest(file.read())


def ends_in_digest(data: bytes) -> bool:
    """Return whether a model's bytes end in a digest, right or wrong."""
    return _DIGEST.fullmatch(data[-DIGEST_BYTES:]) is not None


def _check_digest(content: ModelContent) -> str:
    stated = content.data[-DIGEST_BYTES:]
    if not _DIGEST.fullmatch(stated):
        raise ArtefactError(
            f"{content.path}: carries no kedge seal: cut short (copy it again), or not made by "
            "`kedge convert` (`kedge seal` gives it one; classify and bench take --contract)"
        )
    if not content.sealed:
        raise ArtefactError(
            f"{content.path}: changed since it was sealed; copy it again, or convert again"
        )
    return stated.decode()
