"""Targets, written `format:precision`: the allowed ones, their files, and a device's choice."""

from collections.abc import Iterable
from dataclasses import dataclass

from kedge_convert.export.exported import Scheme
from kedge_models.devices import Device
from kedge_runtime.artefact.kinds import Precision
from kedge_runtime.errors import UsageError


@dataclass(frozen=True)
class Target:
    """One artefact to make; `format` is a key of `kedge_runtime.artefact.containers.FORMATS`."""

    format: str
    precision: Precision

    def __str__(self) -> str:
        """Return the target as on the command line."""
        return f"{self.format}:{self.precision}"

    def file_name(self, model: str) -> str:
        """Return the artefact's name, e.g. `mobilenet.int8.tflite`."""
        return f"{model}.{self.precision}.{self.format}"

    @property
    def needs_calibration(self) -> bool:
        """Whether activations become integers, whose ranges come from calibration images."""
        return self.precision in CALIBRATED


CALIBRATED = frozenset({"int8", "int16x8"})

TARGETS = (
    Target("tflite", "float32"),
    Target("tflite", "float16"),
    Target("tflite", "dynamic"),
    Target("tflite", "int8"),
    Target("tflite", "int16x8"),
    Target("onnx", "float32"),
    Target("onnx", "float16"),
    Target("onnx", "int8"),
)


ALL = "all"


def parse_targets(text: str) -> tuple[Target, ...]:
    """Read `all`, or a comma-separated list such as `tflite:int8,onnx:float32`.

    Raises UsageError naming the first part that isn't a target.
    """
    allowed = {str(target): target for target in TARGETS}
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if parts == [ALL]:
        return TARGETS
    for part in parts or [text]:
        if part not in allowed:
            raise UsageError(
                f"--to: got {part!r}, allowed are all, {', '.join(allowed)}{_meant(part, allowed)}"
            )
    return tuple(dict.fromkeys(allowed[part] for part in parts))


def _meant(part: str, allowed: Iterable[str]) -> str:
    """Return a suggestion for half a target, such as `int8` or `tflite`."""
    meant = [name for name in allowed if part.lower() in name.split(":")]
    return f"; did you mean {','.join(meant)}?" if meant else ""


def targets_for(device: Device | None, requested: str | None = None) -> tuple[Target, ...]:
    """Return the `requested` targets, else the device's own, else all.

    `all` are those that the device runs. Raises UsageError for a target that it can't run.
    """
    if device is None:
        return parse_targets(ALL if requested is None else requested)
    if requested == ALL:
        return tuple(target for target in TARGETS if runs(device, target))
    targets = parse_targets(",".join(device.targets) if requested is None else requested)
    for target in targets:
        if not runs(device, target):
            able = ", ".join(f"{f}:{p}" for f, each in device.precisions.items() for p in each)
            raise UsageError(f"--to: {device.name} can't run {target}, allowed are {able}")
    return targets


def runs(device: Device, target: Target) -> bool:
    """Whether a device runs a target's precision in its format."""
    return target.precision in device.precisions.get(target.format, ())


def scheme_for(device: Device | None, *, per_tensor: bool = False) -> Scheme:
    """Return a device's integer scheme; without a device, one that every CPU runs.

    `per_tensor`: weights have one scale for a whole layer.
    """
    if device is None:
        return Scheme(per_channel=not per_tensor)
    return Scheme(
        device.inputs[0],
        device.outputs[0],
        device.per_channel_dense,
        device.reduce_range,
        device.per_channel and not per_tensor,
    )
