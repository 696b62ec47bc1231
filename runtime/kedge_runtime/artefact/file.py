"""Write and read sealed files: a model with its contract and golden set, and a digest of it all.

`golden.py` beside it has the golden set.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kedge_runtime.artefact import containers
from kedge_runtime.artefact.content import (
    DIGEST_BYTES,
    ModelContent,
    Part,
    file_errors,
    open_plain,
    read_content,
)
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.classify.results import BACKGROUND
from kedge_runtime.errors import ArtefactError
from kedge_runtime.frozen import dataclass

if TYPE_CHECKING:
    from kedge_runtime.artefact.golden import Golden
    from kedge_runtime.artefact.signing import Trust
    from kedge_runtime.field.sketch import Sketch


CONTRACT = "kedge/contract.json"
GOLDEN = "kedge/golden.npz"
SKETCH = "kedge/sketch.npz"  # optional
# Format -> the member where other programs look for class names; ONNX has none.
LABELS = {"tflite": "labels.txt"}

_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Artefact:
    """A sealed file whose digest held when it was read.

    `packed`: its golden set's bytes; `packed_sketch`: its sketch's, empty without one.
    """

    path: Path
    contract: Contract
    packed: bytes = field(repr=False)
    digest: str
    packed_sketch: bytes = field(default=b"", repr=False)

    @cached_property
    def golden(self) -> "Golden":
        """The golden set, read on first use: classifying needs none.

        Raises ArtefactError when it is damaged.
        """
        from kedge_runtime.artefact.golden import Golden

        return Golden.from_bytes(self.packed) if self.packed else Golden.none()

    @cached_property
    def sketch(self) -> "Sketch | None":
        """What the model saw in calibration, read on first use; None without a sketch.

        Raises ArtefactError when it is damaged.
        """
        from kedge_runtime.field.sketch import Sketch

        return Sketch.from_bytes(self.packed_sketch) if self.packed_sketch else None


def seal(format: str, model: Part, contract: Contract, golden: "Golden") -> bytes:
    """Return the bytes of a sealed file; `format`: a key of `containers.FORMATS`."""
    return containers.append(format, model, members_of(format, contract, golden))


def members_of(
    format: str,
    contract: Contract,
    golden: "Golden",
    others: Mapping[str, bytes] | None = None,
    sketch: "Sketch | None" = None,
) -> dict[str, bytes]:
    """Return the members of a sealed file by name; `format`: a key of `containers.FORMATS`.

    `sketch`: of what the model saw in calibration, for `kedge drift --field`. `others`: members
    that other programs put behind the model (`containers.split`).
    """
    # Python's escape for a byte of a name that is no UTF-8 is JSON's, too.
    text = contract.to_json().encode(errors="backslashreplace")
    members = {**(others or {}), CONTRACT: text, GOLDEN: golden.to_bytes()}
    if sketch is not None:
        members[SKETCH] = sketch.to_bytes()
    if format in LABELS and contract.labels:
        members[LABELS[format]] = _lines(contract)
    return members


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
    except (KeyError, IndexError, ValueError) as error:
        raise ArtefactError(
            f"{content.path}: no readable contract in it ({error}); convert again"
        ) from None
    sketch = members.get(SKETCH, b"")
    return Artefact(content.path, Contract.from_json(contract), golden, stated, sketch)


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
