"""Compute the keys of the cache: a digest of everything that changes a result.

Files count by their content, not by their time or path. kedge's own code counts, too: a changed
line may change any artefact.
"""

import hashlib
import json
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kedge_convert
import kedge_models
import kedge_runtime
from kedge_convert.contract_builder import TOOLS
from kedge_convert.device.compilers import COMPILERS
from kedge_convert.load import architecture
from kedge_convert.load.registry import about
from kedge_convert.load.request import SourceRequest
from kedge_convert.matrix.cells import Cell, CellGroup
from kedge_convert.matrix.config import WORDS, ModelConfig
from kedge_convert.toolkit import ConversionError
from kedge_models.demo.shapes import MODEL as DEMO
from kedge_models.devices import device
from kedge_runtime.checks.hardware import PACKAGES, Machine, package_version, processor_name
from kedge_runtime.errors import UsageError, reason_of
from kedge_runtime.files import sha256_of_file
from kedge_runtime.image.folder import files
from kedge_runtime.records import encode


def artefact_key(cell: Cell) -> str:
    """Return the key of a cell's conversion."""
    return _key("artefact", target=str(cell.target), **_conversion(cell))


def files_key(cell: Cell) -> str:
    """Return a digest of the files and options of a conversion."""
    return digest(_conversion(cell))


def group_key(group: CellGroup) -> str:
    """Return the key of the lock under which a group's cells are made."""
    return _key("group", **_conversion(group.cells[0]))


def reference_key(cell: Cell) -> str:
    """Return the key of the float model's answers."""
    return _key("reference", model=_model(cell), **_images(cell))


def drift_key(cell: Cell, artefact: str) -> str:
    """Return the key of a measurement of an artefact, known by its SHA-256, on this machine."""
    model = cell.model
    traced = [model.attribute, model.by_layer]
    return _key("drift", artefact=artefact, reference=reference_key(cell), traced=traced, **here())


def fit_key(cell: Cell, artefact: str) -> str:
    """Return the key of an artefact held against a device."""
    name = cell.gates.device
    asked = [name, cell.gates.min_mapped]
    return _key("fit", artefact=artefact, device=asked, compiler=compiler(name))


def timing_key(artefact: str, reference: str) -> str:
    """Return the key of an artefact's latency as a share of another's on this machine."""
    return _key("timing", artefact=artefact, reference=reference, **here())


def here() -> dict[str, str]:
    """Return the processor: kernels and latencies depend on it."""
    return {"processor": processor_name(Machine())}


def _key(kind: str, **parts: Any) -> str:
    made_by = {"code": code(), "tools": tools(), "machine": platform.machine()}
    return digest({"schema": 1, "kind": kind, **made_by, **parts})


def digest(value: Any) -> str:
    """Return the SHA-256 of plain data, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _conversion(cell: Cell) -> dict[str, Any]:
    calibrate = cell.model.calibrate
    return {
        "model": _model(cell),
        "options": encode(cell.options),
        "calibrate": calibrate and content(Path(calibrate)),
        "force_input": cell.model.force_input,
        "device": [cell.model.device, cell.model.gates.min_mapped],
        "compiler": compiler(cell.model.device),
    }


def _model(cell: Cell) -> dict[str, Any]:
    """Return what the float model is, with its files by content."""
    model = cell.model
    # Paths don't count: class folders are part of the content of the images.
    paths = {"model": Path(model.source).name, "folder": None}
    request = encode(model.request(cell.options)) | paths
    files = {name: _content_of(model, name) for name in ("source", "weights", "labels")}
    return request | files | {"beside": _weights_beside(model)}


def _weights_beside(model: ModelConfig) -> str | None:
    """Return the digest of the weights beside an architecture, None for other models."""
    source = Path(model.source)
    if (
        model.weights != SourceRequest.weights
        or not source.exists()
        or not architecture.holds(source)
    ):
        return None
    with about(model.source):
        file = architecture.architecture_in(source)
        return content(architecture.weights_of(file, model.weights))


def _images(cell: Cell) -> dict[str, Any]:
    return {name: _content_of(cell.model, name) for name in ("images", "truth")}


def _content_of(model: ModelConfig, field: str) -> str | None:
    """Return the digest of the file of a field, or its word."""
    value = getattr(model, field)
    if value == "demo":
        return content(DEMO)
    return value if value is None or value.lower() in WORDS[field] else content(Path(value))


def content(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files of a folder with their names below it.

    Raises UsageError for a missing or unreadable file.
    """
    try:
        return content_of(path.absolute())
    except OSError as error:
        raise UsageError(f"{path}: {reason_of(error)}") from None


# By the absolute path: a relative one means another file in another working folder.
@cache
def content_of(path: Path) -> str:
    """Return the same, read once a process. Raises OSError."""
    if path.is_dir():
        return digest([[name, sha256_of_file(path / name)] for name in _names(path)])
    return sha256_of_file(path)


def _names(folder: Path) -> Iterator[str]:
    yield from sorted(p.relative_to(folder).as_posix() for p in files(folder) if p.is_file())


@cache
def code() -> str:
    """Return a digest of kedge's own files."""
    packages = (kedge_runtime, kedge_models, kedge_convert)
    roots = [Path(package.__path__[0]) for package in packages]
    return digest(
        [
            [f"{root.name}/{name}", sha256_of_file(root / name)]
            for root in roots
            for name in _names(root)
            if not any(part.startswith((".", "__pycache__")) for part in name.split("/"))
        ]
    )


@cache
def tools() -> dict[str, str]:
    """Return the versions of Python and the libraries; none is imported."""
    named = {name: package_version(name) for name in sorted({*PACKAGES, *TOOLS, "ethos-u-vela"})}
    return {"python": platform.python_version(), **{n: v for n, v in named.items() if v}}


@cache
def compiler(name: str | None) -> str:
    """Return the version of a device's compiler, empty without one."""
    found = COMPILERS.get(device(name).compiler) if name else None
    if found is None or found.missing():
        return ""
    try:
        return str(found.version())
    except ConversionError as error:  # it will refuse the compilation, too
        return str(error)
