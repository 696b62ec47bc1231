"""Options that several commands share, and the records that they become."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

_SRAM = re.compile(r"([0-9]{1,15}(?:\.[0-9]+)?)\s*(?:([KM])(?:i?B)?)?", re.IGNORECASE)
_KB = {"K": 1, "M": 1024}


# click's types became generic in 8.3; kedge runs on older ones.
class Sram(click.ParamType):  # type: ignore[type-arg]
    """An amount of SRAM in units of 1024 bytes, as data sheets have it: `512KB`, `1MB`, `512`."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return the KB. Fails with what is allowed."""
        match = _SRAM.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"got {value!r}, allowed are e.g. 512KB, 1MB", param, ctx)
        return float(match[1]) * _KB[(match[2] or "K").upper()]


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
        "--max-sram",
        type=Sram(),
        help="Maximum SRAM, such as 512KB or 1MB (of 1024 KB), instead of the device's.",
    ),
)


@dataclass(frozen=True)
class DeviceOptions:
    """The values of `--device`, `--min-mapped` (0..1) and `--max-sram` (KB of 1024 bytes)."""

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
