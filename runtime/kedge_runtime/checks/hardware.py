"""Check the hardware for `kedge doctor`, and identify the machine of a measurement.

It reads /proc, /sys and /dev on Linux. The identity is in the result itself and in its file's name.
"""

import ctypes
import os
import platform
import re
from dataclasses import field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import machine
from typing import Any, Literal

from kedge_runtime.engines.choice import (
    EDGETPU_INSTALL,
    EDGETPU_LIBRARY,
    Library,
    cores,
    is_installed,
)
from kedge_runtime.frozen import dataclass

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """The result of one check. `fix`: what to do about it, empty if nothing."""

    state: State
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Machine:
    """The machine to check: this one, or in tests a folder that stands for one."""

    root: Path = Path("/")
    processor: str = field(default_factory=machine)

    def read(self, path: str) -> str:
        """Return a file's text, stripped, or an empty text when it can't be read."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip("\0 \n")
        except OSError:
            return ""

    def find(self, pattern: str) -> list[Path]:
        """Return the paths below the root that match a pattern, sorted."""
        try:
            return sorted(self.root.glob(pattern))
        except OSError:
            return []


# Instructions that speed up networks, by processor: the name in /proc/cpuinfo -> the name shown.
# `DOT` are those that multiply and add int8 in one instruction.
FEATURES = {
    "x86_64": {
        "avx2": "AVX2",
        "avx512f": "AVX-512",
        "avx_vnni": "VNNI",
        "avx512_vnni": "AVX-512 VNNI",
        "amx_int8": "AMX int8",
    },
    "aarch64": {"asimddp": "dot product", "i8mm": "int8 matrix", "asimdhp": "fp16", "sve": "SVE"},
    "armv7l": {"neon": "NEON", "vfpv4": "VFPv4"},
}
DOT = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"})
NO_DOT = {
    "x86_64": "int8 .onnx files may saturate without VNNI: prefer int8 .tflite files",
    "aarch64": "int8 is still faster than float32, but by less than on newer cores",
    "armv7l": "a 64-bit system runs networks faster on the same board",
}

SMALL_MEMORY, LITTLE_MEMORY = 512 << 20, 128 << 20  # bytes: in total, and available
HOT = 80  # °C, where a Raspberry Pi begins to lower its clock

# Bits of the Raspberry Pi firmware's get_throttled. Shifted by WHEN they report the present, which
# is checked first, and the past.
THROTTLED = {
    0: ("under-voltage", "use the official power supply and a short cable"),
    1: ("clock capped", "cool the board, or give it a better power supply"),
    2: ("throttled", "cool the board: a heat sink or a fan"),
    3: ("soft temperature limit", "cool the board: a heat sink or a fan"),
}

WHEN: dict[int, tuple[State, str]] = {0: ("problem", "now"), 16: ("note", "since it booted")}

# USB ids of a Coral accelerator: as it is plugged in, and after its first use.
CORAL_USB = frozenset({("1a6e", "089a"), ("18d1", "9302")})


def processor(machine: Machine) -> Finding:
    """Report the processor, its cores, and the instructions that speed up networks."""
    facts = _cpuinfo(machine)
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    names = [ours for flag, ours in FEATURES.get(machine.processor, {}).items() if flag in flags]
    detail = ", ".join([processor_name(machine), f"{cores()} cores", *names])
    if not flags or flags & DOT or machine.processor not in NO_DOT:
        return Finding("ok", detail)
    return Finding("note", f"{detail}; no int8 dot product", NO_DOT[machine.processor])


def processor_name(machine: Machine) -> str:
    """Return the board's name, or the processor's, or at least its architecture."""
    facts = _cpuinfo(machine)
    board = machine.read("proc/device-tree/model")
    return board or facts.get("model name") or facts.get("Model") or machine.processor


def _cpuinfo(machine: Machine) -> dict[str, str]:
    """Return the first core's facts."""
    lines = [line.partition(":")[::2] for line in machine.read("proc/cpuinfo").splitlines()]
    return {key.strip(): value.strip() for key, value in reversed(lines)}


def memory(machine: Machine) -> Finding:
    """Report the total and the available memory."""
    lines = [line.split() for line in machine.read("proc/meminfo").splitlines()]
    kilobytes = {parts[0].rstrip(":"): int(parts[1]) for parts in lines if len(parts) > 1}
    if "MemTotal" not in kilobytes:
        return Finding("ok", "can't be read here")
    total = kilobytes["MemTotal"] << 10
    available = kilobytes.get("MemAvailable", kilobytes["MemTotal"]) << 10
    detail = f"{_size(available)} available of {_size(total)}"
    if available < LITTLE_MEMORY:
        return Finding("problem", detail, "end other programs, the desktop first")
    if total < SMALL_MEMORY:
        return Finding("note", detail, "prefer int8 models, and run without a desktop")
    return Finding("ok", detail)


def temperature(machine: Machine) -> Finding:
    """Report the hottest sensor."""
    zones = machine.find("sys/class/thermal/thermal_zone*/temp")
    texts = [machine.read(str(zone.relative_to(machine.root))) for zone in zones]
    degrees = [int(text) / 1000 for text in texts if text.lstrip("-").isdigit()]
    if not degrees:
        return Finding("ok", "no sensor can be read")
    hottest = max(degrees)
    if hottest < HOT:
        return Finding("ok", f"{hottest:.0f} °C")
    return Finding(
        "note", f"{hottest:.0f} °C: the processor lowers its clock", "add a heat sink or a fan"
    )


def clock(machine: Machine) -> Finding:
    """Report the governor, and whether a Raspberry Pi's firmware has lowered the clock."""
    text = machine.read("sys/devices/platform/soc/soc:firmware/get_throttled")
    bits = int(text, 16) if text else 0
    for shift, (state, when) in WHEN.items():
        for bit, (what, fix) in THROTTLED.items():
            if bits >> (bit + shift) & 1:
                return Finding(state, f"{what} {when}", fix)
    governor = machine.read("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor in ("", "performance"):
        return Finding("ok", f"governor {governor}" if governor else "no governor can be read")
    steady = "for steady timings: sudo cpupower frequency-set -g performance"
    return Finding("note", f"governor {governor}: timings depend on the load", steady)


def camera(machine: Machine) -> Finding:
    """Report the camera devices, and whether Picamera2 is installed."""
    devices = machine.find("dev/video*")
    closed = [device.name for device in devices if not os.access(device, os.R_OK)]
    names = [device.name for device in devices]
    if is_installed(Library("picamera2", "picamera2")):
        names.append("picamera2")
    if closed:
        return Finding(
            "problem",
            f"/dev/{closed[0]} can't be opened",
            "sudo usermod -aG video $USER, then log in again",
        )
    return Finding("ok", ", ".join(names) or "no camera: images and videos can be classified")


def coral(machine: Machine) -> Finding:
    """Report an Edge TPU on USB or PCI, and whether its library can be loaded."""
    boards = machine.find("dev/apex_*")
    devices = ["USB"] * sum(map(_is_coral, machine.find("sys/bus/usb/devices/*/idVendor")))
    devices += [f"/dev/{board.name}" for board in boards]
    library = _loads(EDGETPU_LIBRARY)
    if not devices:
        extra = f" ({EDGETPU_LIBRARY} is installed)" if library else ""
        return Finding("ok", f"no Edge TPU{extra}")
    if not library:
        detail = f"Edge TPU ({', '.join(devices)}) without {EDGETPU_LIBRARY}"
        return Finding("problem", detail, EDGETPU_INSTALL)
    if closed := [board for board in boards if not os.access(board, os.R_OK | os.W_OK)]:
        fix = "sudo usermod -aG apex $USER, then log in again"
        return Finding("problem", f"/dev/{closed[0].name} can't be opened", fix)
    return Finding("ok", f"Edge TPU ({', '.join(devices)}): --delegate edgetpu")


def _is_coral(vendor: Path) -> bool:
    product = vendor.with_name("idProduct")
    return (vendor.read_text().strip(), product.read_text().strip()) in CORAL_USB


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GB" if count >= 1 << 30 else f"{count >> 20} MB"


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
        "packages": {name: number for name in PACKAGES if (number := package_version(name))},
    }


def slug(machine: Machine | None = None) -> str:
    """Return a file name for this machine, e.g. `amd-epyc-2-cores`."""
    name = processor_name(machine or Machine())
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{stem}-{os.cpu_count()}-cores"


def package_version(package: str) -> str:
    """Return the version of an installed distribution, "" for one that isn't installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
