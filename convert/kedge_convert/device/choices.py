"""Choose targets and scheme for a device's profile (`--device NAME`)."""

from kedge_convert.export.exported import Scheme
from kedge_convert.targets import TARGETS, Target, parse_targets
from kedge_models.devices import Device
from kedge_runtime.errors import UsageError

ALL = "all"


def targets_for(device: Device | None, requested: str | None = None) -> tuple[Target, ...]:
    """Return the `requested` targets, else the device's own, else all.

    `all` are those that the device runs. Raises UsageError for a target that it can't run.
    """
    if device is None:
        return parse_targets(requested or ALL)
    if requested == ALL:
        return tuple(target for target in TARGETS if runs(device, target))
    targets = parse_targets(requested or ",".join(device.targets))
    for target in targets:
        if not runs(device, target):
            able = ", ".join(f"{f}:{p}" for f, each in device.precisions.items() for p in each)
            raise UsageError(f"--to: {device.name} can't run {target}, allowed are {able}")
    return targets


def runs(device: Device, target: Target) -> bool:
    """Whether a device runs a target's precision in its format."""
    return target.precision in device.precisions.get(target.format, ())


def scheme_for(device: Device | None) -> Scheme:
    """Return a device's integer scheme; without a device, one that every CPU runs."""
    if device is None:
        return Scheme()
    return Scheme(
        device.inputs[0], device.outputs[0], device.per_channel_dense, device.reduce_range
    )
