"""Read device profiles: the models that each device can run, as data.

A device is hardware, or a program that loads the file with code of its own (a [loader]). Each
profile is a file `devices/<name>.toml`, with the source of every fact beside it. It states only
what differs from the defaults below. To add a device, add a file. `kedge_convert.targets` applies
a profile to a conversion, `kedge_convert.device.fit` to a file.
"""

from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from kedge_models import toml
from kedge_runtime.artefact.containers import FORMATS
from kedge_runtime.artefact.kinds import DType, Fit, Kind, Precision, Resize
from kedge_runtime.errors import ContractError

Compiler = Literal["none", "edgetpu", "vela"]


@dataclass(frozen=True)
class Vela:
    """The options of ethos-u-vela: --accelerator-config, --system-config and --memory-mode.

    `sram_kb`: the most SRAM, in 1024 bytes, that a compiled model may use.
    """

    accelerator: str
    system: str
    memory: str
    sram_kb: int


@dataclass(frozen=True)
class Loader:
    """A program that runs the file itself, without kedge's preprocessing and decoding.

    `kinds`: the output types that it reads, of which one must be in the file; the output activation
    goes into the file where `logits` isn't among them. `fit`: how it scales an image to the input,
    `resizes`: the methods that give its pixels but for rounding. `size`: the height and width that
    it feeds, 0 for any. `raw_bytes`: whether it puts an image's bytes into the input as they are.
    `model`, `labels`: file names in the folder that it loads, empty where it takes any file.
    """

    kinds: tuple[Kind, ...]
    resizes: tuple[Resize, ...]
    fit: Fit
    size: int = 0
    raw_bytes: bool = False
    model: str = ""
    labels: str = ""


@dataclass(frozen=True)
class Device:
    """A device profile. `name`: the value of --device.

    `targets`: those that a conversion makes for it, the best one first, as `format:precision`.
    `precisions`: those that it can run, by format. `inputs`, `outputs`: allowed I/O dtypes of the
    model, the preferred one first. `per_channel_dense`: whether a dense layer may have a scale per
    output; `per_channel`: whether any layer may. `batch`: the batch that must be fixed in the file,
    0 for any. `operators`: the only ones that it runs, by format; a format without an entry has no
    limit. `versions`: TFLite operators by the newest version that the compiler reads; none: any.
    `reduce_range`: whether int8 weights in ONNX must keep to 7 bits. `memory_mb`: its
    memory, in 1e6 bytes; 0 where the product decides. `cache_kb`: weights, in 1024 bytes, that stay
    on the accelerator; 0 without one. `loader`: the program that loads the file, where that isn't
    kedge.
    """

    name: str
    title: str
    targets: tuple[str, ...]
    precisions: dict[str, tuple[Precision, ...]]
    inputs: tuple[DType, ...] = ("int8", "uint8", "float32", "float16", "int16")
    outputs: tuple[DType, ...] = ("int8", "uint8", "float32", "float16", "int16")
    per_channel_dense: bool = True
    per_channel: bool = True
    batch: int = 0
    operators: dict[str, tuple[str, ...]] = field(default_factory=dict)
    versions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reduce_range: bool = False
    memory_mb: int = 0
    cache_kb: int = 0
    compiler: Compiler = "none"
    vela: Vela | None = None
    loader: Loader | None = None

    def __post_init__(self) -> None:
        """Refuse a profile that contradicts itself."""
        for format in {*self.precisions, *self.operators} - FORMATS.keys():
            allowed = ", ".join(FORMATS)
            raise ContractError(f"device {self.name}: format is {format!r}, known are {allowed}")
        runnable = {
            f"{format}:{each}" for format, names in self.precisions.items() for each in names
        }
        if wrong := set(self.targets) - runnable:
            raise ContractError(f"device {self.name}: makes {min(wrong)}, which it can't run")
        if (self.compiler == "vela") != (self.vela is not None):
            raise ContractError(
                f"device {self.name}: compiler vela and the table [vela] go together"
            )
        if self.loader and self.precisions.keys() != {"tflite"}:
            raise ContractError(f"device {self.name}: a [loader] takes tflite files alone")
        for version in self.versions:
            if not version.isdecimal():
                raise ContractError(f"device {self.name}: version {version!r} is no whole number")

    def newest_versions(self) -> dict[str, int]:
        """Return the newest version of each operator that the compiler reads; empty: any."""
        pairs = self.versions.items()
        return {kind: int(version) for version, kinds in pairs for kind in kinds}


@cache
def devices() -> dict[str, Device]:
    """Return every device by its name. Raises ContractError for a bad profile."""
    return {name: parse(name, text) for name, text in toml.texts("devices").items()}


def parse(name: str, text: str) -> Device:
    """Read one profile from TOML."""
    return toml.parse(Device, text, f"devices/{name}.toml", name=name)


def device(name: str) -> Device:
    """Return the device called `name` in any case. Raises UsageError with those there are."""
    return toml.pick(name, devices(), "device", f"known are {', '.join(devices())}")
