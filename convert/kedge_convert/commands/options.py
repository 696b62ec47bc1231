"""Options that several commands share, and the records that they become."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from kedge_models.cards import cards
from kedge_models.devices import Device, device, devices
from kedge_runtime.commands.arguments import SHARE, completing
from kedge_runtime.commands.options import record

if TYPE_CHECKING:
    from kedge_convert.device.fit import DeviceGates

# Completions: of a MODEL, and of the name of a card.
MODEL = completing(lambda: ["demo", *cards()], files=True)
CARD = completing(lambda: cards())

OPTIONS = (
    click.option(
        "--device",
        shell_complete=completing(lambda: devices()),
        help="Device profile: pi4, coral, ... (docs/edge.md).",
    ),
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


@dataclass(frozen=True)
class DeviceOptions:
    """The values of `--device`, `--min-mapped` (0..1) and `--max-sram` (1024 bytes)."""

    device: str | None
    min_mapped: float
    max_sram: float | None

    def profile(self) -> Device | None:
        """Return the device's profile. Raises UsageError for an unknown name."""
        return None if self.device is None else device(self.device)

    def gates(self) -> "DeviceGates":
        """Return the limits of a file on the device."""
        from kedge_convert.device.fit import DeviceGates

        return DeviceGates(self.min_mapped, self.max_sram)


# The device of an artefact, as `device`: DeviceOptions.
device_options = record("device", DeviceOptions, *OPTIONS)
