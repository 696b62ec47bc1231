"""Identify the machine of a measurement: in the result itself and in its file's name."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from kedge_runtime.checks.hardware import Machine, processor_name

# The distributions that affect a measurement.
PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "ai-edge-litert",
    "tflite-runtime",
    "onnxruntime",
    "tensorflow-cpu",
    "tensorflow",
    "tf_keras",
)


def identity(machine: Machine | None = None) -> dict[str, Any]:
    """Return processor, cores, memory in 1e9 bytes, system, and the libraries' versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor_name(machine or Machine()),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: number for name in PACKAGES if (number := installed_version(name))},
    }


def slug(machine: Machine | None = None) -> str:
    """Return a file name for this machine, e.g. `amd-epyc-2-cores`."""
    name = processor_name(machine or Machine())
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{stem}-{os.cpu_count()}-cores"


def installed_version(package: str) -> str:
    """Return the version of an installed distribution, "" for one that isn't installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
