"""Call Vela, Arm's compiler for Ethos-U, and read its summary: the extra `ethos-u`."""

import csv
import re
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from kedge_convert.device.compilation import Compilation, Row, call
from kedge_convert.toolkit import ConversionError
from kedge_models.devices import Device
from kedge_runtime.errors import install

CONFIGURATION = "Arm/vela.ini"

_COUNT = re.compile(r"^(CPU|NPU) operators = (\d+)", re.MULTILINE)
# A column of the summary -> the figure, and its factor. Vela's memory is in KiB.
_FIGURES = {
    "sram_memory_used": ("sram_kb", 1.0),
    "dram_memory_used": ("dram_kb", 1.0),
    "off_chip_flash_memory_used": ("flash_kb", 1.0),
    "cycles_total": ("cycles", 1.0),
    "inference_time": ("inference_ms", 1e3),
    "nn_macs": ("macs", 1.0),
}


def missing() -> str:
    """Return why the compiler can't be called, or ""."""
    return "" if find_spec("ethosu") else f"Vela isn't installed: {install('ethos-u')}"


def version() -> str:
    """Return the compiler's name and version."""
    return f"ethos-u-vela {metadata.version('ethos-u-vela')}"


def compile_model(path: Path, device: Device, folder: Path) -> tuple[Compilation, Path]:
    """Compile a .tflite file into a folder; return its summary's figures, and the file.

    Raises ConversionError when Vela fails or writes no summary.
    """
    output = call([sys.executable, "-m", "ethosu.vela", *_options(device, folder), path])
    compiled = folder / f"{path.stem}_vela.tflite"
    summary = next(iter(folder.glob("*_summary_*.csv")), None)
    if summary is None or not compiled.is_file():
        raise ConversionError(f"Vela wrote no {compiled.name} and summary")
    return parse(output, summary.read_text(encoding="utf-8")), compiled


def parse(output: str, summary: str) -> Compilation:
    """Read Vela's output and the one row of its summary. Raises ConversionError."""
    counts = {unit: int(count) for unit, count in _COUNT.findall(output)}
    row = next(csv.DictReader(summary.splitlines()), None)
    if counts.keys() != {"CPU", "NPU"} or row is None or not _FIGURES.keys() <= row.keys():
        raise ConversionError("Vela: its summary isn't as version 5 writes it")
    figures = {name: round(float(row[key]) * by, 3) for key, (name, by) in _FIGURES.items()}
    rows = (Row("all", counts["NPU"], "NPU"), Row("all", counts["CPU"], "CPU"))
    return Compilation(
        version(),
        counts["NPU"],
        counts["NPU"] + counts["CPU"],
        rows,
        figures,
    )


def _options(device: Device, folder: Path) -> list[str | Path]:
    settings = device.vela
    assert settings is not None, "devices.py holds compiler and settings together"
    return [
        *("--config", CONFIGURATION),
        *("--accelerator-config", settings.accelerator),
        *("--system-config", settings.system),
        *("--memory-mode", settings.memory),
        *("--output-dir", folder),
    ]
