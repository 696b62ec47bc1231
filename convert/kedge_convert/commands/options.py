"""Options that several commands share, and the records that they become."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kedge_runtime.commands.options import SHARE

if TYPE_CHECKING:
    from kedge_convert.device.fit import DeviceGates
    from kedge_models.devices import Device

OPTIONS = (
    click.option("--device", help="Device profile: pi4, coral, ... (docs/edge.md)."),
    click.option(
        "--min-mapped",
        type=SHARE,
        default=1.0,
        show_default=True,
        help="Minimum share of operators on the device's accelerator.",
    ),
    click.option(
        "--max-sram", type=click.FloatRange(0), help="Maximum SRAM in KB, instead of the device's."
    ),
)

Record = TypeVar("Record")


@dataclass(frozen=True)
class DeviceOptions:
    """The values of `--device`, `--min-mapped` (0..1) and `--max-sram` (1024 bytes)."""

    device: str | None
    min_mapped: float
    max_sram: float | None

    def profile(self) -> "Device | None":
        """Return the device's profile. Raises UsageError for an unknown name."""
        from kedge_models.devices import device

        return None if self.device is None else device(self.device)

    def gates(self) -> "DeviceGates":
        """Return the limits of a file on the device."""
        from kedge_convert.device.fit import DeviceGates

        return DeviceGates(self.min_mapped, self.max_sram)


def device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--device`, `--min-mapped` and `--max-sram`; `read` reads them."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def read(record: type[Record], values: dict[str, Any], **groups: object) -> Record:
    """Return a command's options as its record; `groups` are fields of several options each.

    A field called `device` holds the DeviceOptions.
    """
    names = [each.name for each in fields(record)]  # type: ignore[arg-type]
    groups["device"] = DeviceOptions(*(values[each.name] for each in fields(DeviceOptions)))
    plain = {name: values[name] for name in names if name not in groups}
    return record(**plain, **groups)
