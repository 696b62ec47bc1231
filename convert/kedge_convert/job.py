"""What a conversion is asked for, and what became of it: the records of the pipeline."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from kedge_convert.device import fit
from kedge_convert.device.choices import runs, scheme_for
from kedge_convert.device.fit import DeviceFit
from kedge_convert.export.exported import Scheme, Way
from kedge_convert.images import Sampling
from kedge_convert.load.request import SourceRequest
from kedge_convert.parity import Parity, Verdict
from kedge_convert.quantise.budget import Budget
from kedge_convert.targets import Target
from kedge_models.devices import Device
from kedge_runtime.artefact.contract import Kind, Precision

# What an int8 target becomes to hold a budget (`quantise/search.py`).
LAST_RESORTS: tuple[Precision, ...] = ("mixed", "float16")


@dataclass(frozen=True)
class Job:
    """One run of `kedge convert`. `calibrate`: the folder of pictures, if any.

    `prepare`: adjust the weights of integer targets first (docs/quantisation.md); `unprepared`: why
    that is out of the question, where it was tried in vain. `dynamic_batch`: of the ONNX targets.
    `rewrites`: of edge.rewrites.REWRITES, before anything is exported.
    `limits`: the user's own for `parity.Limits`, by name; None keeps the precision's default.
    `device`: what the artefacts are for, `gates`: what they must hold on it.
    `force_input`: keep the input even where another one fits the model better.
    """

    request: SourceRequest
    targets: tuple[Target, ...]
    out: Path
    calibrate: Path | None = None
    sampling: Sampling = Sampling()
    prepare: bool = True
    unprepared: str = ""
    dynamic_batch: bool = False
    rewrites: tuple[str, ...] = ()
    limits: dict[str, float | None] = field(default_factory=dict)
    device: Device | None = None
    gates: fit.DeviceGates = fit.GATES
    force_input: bool = False

    @property
    def log(self) -> Path:
        """What the toolkits wrote when something went wrong."""
        return self.out / f"{Path(self.request.model).name}.log"

    @property
    def scheme(self) -> Scheme:
        """How the integers are laid out."""
        return scheme_for(self.device)

    @property
    def device_name(self) -> str:
        """The device's name, as artefacts keep it; "" without one."""
        return self.device.name if self.device else ""

    @property
    def budget(self) -> Budget:
        """What integer artefacts may lose."""
        return Budget(self.limits.get("drop"), self.limits.get("top1"))

    @property
    def mixes(self) -> bool:
        """Whether integer targets may become files with float layers, or of float16."""
        return bool(self.budget) and any(map(self.may_mix, self.targets))

    def places(self, model: str) -> Iterator[Path]:
        """Yield where the artefacts of a model may lie."""
        for target in self.targets:
            resorts = LAST_RESORTS if self.mixes and target.precision == "int8" else ()
            for precision in (target.precision, *resorts):
                yield self.out / replace(target, precision=precision).file_name(model)

    def may_mix(self, target: Target) -> bool:
        """Whether layers of a target may stay float to hold a budget."""
        return self.device is None or runs(self.device, replace(target, precision="mixed"))


@dataclass(frozen=True)
class Checked:
    """A sealed file and what was measured of it. `path` ends in `.rejected` for a miss.

    `size`: bytes; `ratio`: to 4 bytes per parameter; `head`: what the user's model ended in; `fit`:
    how it fits the device, if one was named; `compiled`: the file that its compiler made.
    """

    path: Path
    size: int
    ratio: float
    parity: Parity
    way: Way
    head: Kind
    fit: DeviceFit | None = None
    compiled: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one target; nothing is `checked` when its conversion failed."""

    target: Target
    verdict: Verdict
    checked: Checked | None = None
    notes: tuple[str, ...] = ()


def failed(target: Target, reason: str) -> Outcome:
    """Return the outcome of a conversion that gave no file."""
    return Outcome(target, Verdict((reason,)))
