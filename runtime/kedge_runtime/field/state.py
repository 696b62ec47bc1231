"""Keep the state of the tests over a restart: written whole, and checked by its digest."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from kedge_runtime.arrays import Array
from kedge_runtime.artefact.content import DIGEST_BYTES, digest, open_plain
from kedge_runtime.errors import ArtefactError, reason_of
from kedge_runtime.field.evidence import FieldTests
from kedge_runtime.field.sketch import Sketch
from kedge_runtime.files import write_whole
from kedge_runtime.modelfile.archives import read_arrays

MAX_BYTES = 4 << 20  # a state of 1000 classes takes 150 kB
_MAX_FRAMES = 1 << 53


def _arrays(evidence: FieldTests) -> dict[str, Array]:
    """Return the arrays of a state by name; those that it shares memory with can be written to."""
    tests, mix, memory = evidence.tests, evidence.mix, evidence.memory
    return {
        "counts": evidence.counts,
        "classes": evidence.classes,
        "began": evidence.began,
        "raised": evidence.raised,
        "tests": tests.money,
        "mix": mix.money,
        **{f"memory_{name}": array for name, array in vars(memory).items()},
    }


def to_bytes(evidence: FieldTests, artefact: str) -> bytes:
    """Return the state of tests; `artefact`: the digest of the file whose sketch they hold."""
    file = io.BytesIO()
    numbers = {"frames": np.array([evidence.frames], np.int64), "artefact": np.array([artefact])}
    arrays: dict[str, Any] = {**_arrays(evidence), **numbers}
    np.savez_compressed(file, **arrays)
    body = file.getvalue()
    return body + digest(body)


def from_bytes(content: bytes, sketch: Sketch, artefact: str, seed: int = 0) -> FieldTests:
    """Read what `to_bytes` wrote for the same file. Raises ArtefactError for anything else."""
    body, stated = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if len(content) > MAX_BYTES or digest(body) != stated:
        raise ArtefactError("it is damaged")
    arrays = read_arrays(body)
    evidence = FieldTests(sketch, seed)
    known = _arrays(evidence)
    if arrays.keys() != {*known, "frames", "artefact"}:
        raise ArtefactError("it is of another version of kedge")
    if arrays["artefact"].ravel().tolist() != [artefact]:
        raise ArtefactError("it is of another file")
    evidence.frames = _frames(arrays["frames"])
    for name, array in known.items():
        _fill(name, array, arrays[name], evidence.frames)
    evidence.reseed()
    return evidence


def _frames(array: Array) -> int:
    if array.shape != (1,) or array.dtype.kind != "i" or not 0 <= array[0] < _MAX_FRAMES:
        raise ArtefactError("it is damaged (frames)")
    return int(array[0])


def _fill(name: str, place: Array, stored: Array, frames: int) -> None:
    """Copy a stored array into its place. Raises ArtefactError for one that can't be it."""
    right = stored.shape == place.shape and stored.dtype == place.dtype
    if not (right and np.isfinite(stored).all()):
        raise ArtefactError(f"it is damaged ({name})")
    least = -1 if place.dtype.kind == "i" else 0
    free = name in ("memory_normal", "memory_values", "memory_times")
    if not free and (stored < least).any():
        raise ArtefactError(f"it is damaged ({name})")
    if name in ("began", "raised") and (stored > frames).any():
        raise ArtefactError(f"it is damaged ({name})")
    place[:] = stored


def read_state(path: Path, sketch: Sketch, artefact: str, seed: int = 0) -> FieldTests:
    """Return the state in a file. Raises ArtefactError for one that can't be used."""
    try:
        with open_plain(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ArtefactError(reason_of(error)) from None
    return from_bytes(content, sketch, artefact, seed)


def write_state(path: Path, evidence: FieldTests, artefact: str) -> None:
    """Write a state whole or not at all. Raises UsageError where the disk refuses it."""
    write_whole(path, to_bytes(evidence, artefact))
