"""Call the Edge TPU compiler and read its log: coral.ai/docs/edgetpu/compiler."""

import re
import shutil
from pathlib import Path

from kedge_convert.device.compilation import Compilation, Row, call
from kedge_convert.toolkit import ConversionError
from kedge_models.devices import Device

COMMAND = "edgetpu_compiler"
MAPPED = "Mapped to Edge TPU"

_ROW = re.compile(r"^([A-Z][A-Z0-9_]*) +(\d+) +(\S.*)$", re.MULTILINE)
_VERSION = re.compile(r"Edge TPU Compiler version (\S+)")
# The compiler's line -> the figure; sizes are written with their unit.
_SIZES = {
    "On-chip memory used for caching model parameters": "cached_kb",
    "On-chip memory remaining for caching model parameters": "cache_left_kb",
    "Off-chip memory used for streaming uncached model parameters": "streamed_kb",
}
_UNITS = {"B": 1 / 1024, "KiB": 1.0, "MiB": 1024.0, "GiB": 1024.0**2}
_SEGMENTS = re.compile(r"Number of Edge TPU subgraphs: (\d+)")


def missing() -> str:
    """Return why the compiler can't be called, or ""."""
    return "" if shutil.which(COMMAND) else f"no {COMMAND} on PATH"


def version() -> str:
    """Return the compiler's own version line. Raises ConversionError when it fails."""
    return call([COMMAND, "--version"]).strip()


def compile_model(path: Path, device: Device, folder: Path) -> tuple[Compilation, Path]:
    """Compile a .tflite file into a folder; return its log's figures, and the file.

    Raises ConversionError when the compiler fails or writes no file.
    """
    output = call([COMMAND, "-s", "-o", folder, path])
    compiled = folder / f"{path.stem}_edgetpu.tflite"
    log = compiled.with_suffix(".log")
    if not compiled.is_file():
        raise ConversionError(f"{COMMAND} wrote no {compiled.name}")
    return parse(output, log.read_text(encoding="utf-8") if log.is_file() else output), compiled


def parse(output: str, log: str) -> Compilation:
    """Read the compiler's figures and the table of its log. Raises ConversionError."""
    rows = tuple(Row(kind, int(count), status.strip()) for kind, count, status in _ROW.findall(log))
    version = _VERSION.search(output) or _VERSION.search(log)
    if not rows or version is None:
        raise ConversionError(f"{COMMAND}: its log has no table of operators")
    mapped = sum(row.count for row in rows if row.status == MAPPED)
    return Compilation(
        f"{COMMAND} {version[1]}", mapped, sum(row.count for row in rows), rows, _figures(output)
    )


def _figures(output: str) -> dict[str, float]:
    figures = {}
    for line, name in _SIZES.items():
        if size := re.search(rf"{line}: ([\d.]+)(\w+)", output):
            figures[name] = round(float(size[1]) * _UNITS[size[2]], 2)
    segments = _SEGMENTS.search(output)
    return figures | ({"segments": float(segments[1])} if segments else {})
