"""Records of the pipeline: the job, its parts for each stage, and the outcome of a target."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kedge_convert.device import fit, loader
from kedge_convert.device.fit import DeviceFit
from kedge_convert.export.exported import Recipe
from kedge_convert.load.request import SourceRequest
from kedge_convert.parity import Parity
from kedge_convert.quantise.budget import Budget
from kedge_convert.quantise.candidates import QuantisationOptions
from kedge_convert.quantise.effort import DEFAULT, Effort
from kedge_convert.sampling import Sampling
from kedge_convert.targets import Target, runs, scheme_for
from kedge_convert.verdict import DEFAULTS, UserLimits, Verdict
from kedge_models.devices import Device
from kedge_runtime.artefact.contract import Input
from kedge_runtime.artefact.kinds import Kind, Precision

# What an int8 target becomes to hold a budget (`quantise/search.py`).
LAST_RESORTS: tuple[Precision, ...] = ("mixed", "float16")


@dataclass(frozen=True)
class ImageRequest:
    """Where calibration and validation images come from: a folder, if any, and how many."""

    folder: Path | None = None
    sampling: Sampling = Sampling()


@dataclass(frozen=True)
class PreparationRequest:
    """How integer targets are made, and the budget: it holds nothing if no layer can stay float."""

    options: QuantisationOptions
    budget: Budget


@dataclass(frozen=True)
class ReleaseRequest:
    """What a target's file must hold before it gets its name, and where it goes.

    `device`: the profile that it must fit within `gates`. `limits`: the user's own. `unprepared`:
    as of Job. `sketched`: whether the images are the user's own, worth a sketch in the file.
    `confidence`: the most images for it; None where the images are rendered ones.
    """

    out: Path
    limits: UserLimits = DEFAULTS
    device: Device | None = None
    gates: fit.DeviceGates = fit.GATES
    dynamic_batch: bool = False
    unprepared: str = ""
    sketched: bool = False
    confidence: int | None = None

    @property
    def device_name(self) -> str:
        """The device's name, as artefacts keep it; "" without one."""
        return self.device.name if self.device else ""


@dataclass(frozen=True)
class Job:
    """One run of `kedge convert`. `calibrate`: the folder of images, if any; `synthetic`: images
    are made from the model instead.

    `effort`: of integer targets (docs/quantisation.md); `unprepared`: why their weights can't be
    prepared, after an attempt that failed. `dynamic_batch`: of the ONNX targets. `rewrites`: keys
    of rewrite.on_request.REWRITES, applied before the export. `per_tensor`: int8 weights
    have one scale for a whole layer. `limits`: the user's own for `verdict.ParityLimits`.
    `device`: the profile that artefacts must fit, `gates`: what they must hold on it.
    """

    request: SourceRequest
    targets: tuple[Target, ...]
    out: Path
    calibrate: Path | None = None
    sampling: Sampling = Sampling()
    effort: Effort = DEFAULT
    unprepared: str = ""
    dynamic_batch: bool = False
    rewrites: tuple[str, ...] = ()
    per_tensor: bool = False
    limits: UserLimits = DEFAULTS
    device: Device | None = None
    gates: fit.DeviceGates = fit.GATES
    synthetic: bool = False

    @property
    def log(self) -> Path:
        """What the toolkits wrote when something went wrong."""
        return self.out / f"{Path(self.request.model).name}.log"

    @property
    def images(self) -> ImageRequest:
        """The request for images."""
        return ImageRequest(self.calibrate, self.sampling)

    @property
    def prepares(self) -> bool:
        """Whether integer targets get prepared weights, where the model allows it."""
        return self.effort.prepares and any(each.needs_calibration for each in self.targets)

    def preparation(self, spec: Input) -> PreparationRequest:
        """Return the request for integer targets of a model with this input."""
        formats = tuple(target.format for target in self.targets if target.needs_calibration)
        plain = scheme_for(self.device, per_tensor=self.per_tensor)
        scheme = loader.with_span(plain, spec, self.device)
        options = QuantisationOptions(self.sampling.seed, scheme, formats, self.effort)
        return PreparationRequest(options, self.budget if self.mixes else Budget())

    @property
    def release(self) -> ReleaseRequest:
        """The request for each target's file."""
        return ReleaseRequest(
            self.out,
            self.limits,
            self.device,
            self.gates,
            self.dynamic_batch,
            self.unprepared,
            sketched=self.calibrate is not None,
            confidence=self.sampling.confidence if self.calibrate else None,
        )

    @property
    def budget(self) -> Budget:
        """What integer artefacts may lose."""
        return Budget(self.limits.drop, self.limits.agreement)

    @property
    def mixes(self) -> bool:
        """Whether integer targets may become files with float layers, or of float16."""
        return bool(self.budget) and any(map(self.may_mix, self.targets))

    def paths(self, model: str) -> Iterator[Path]:
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
    """A sealed file and its measurement. `path` ends in `.rejected` for a miss.

    `size`: bytes; `ratio`: to 4 bytes per parameter; `head`: the output type of the user's model;
    `fit`: how it fits the device, if one was named; `compiled`: the file that its compiler made;
    `confidence`: what labelled images said of its answers (docs/json.md), if there were enough;
    `folder`: the one that the device's program loads, if it takes folders.
    """

    path: Path
    size: int
    ratio: float
    parity: Parity
    recipe: Recipe
    head: Kind
    fit: DeviceFit | None = None
    compiled: Path | None = None
    confidence: dict[str, Any] | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of one target; nothing is `checked` when its conversion failed."""

    target: Target
    verdict: Verdict
    checked: Checked | None = None
    notes: tuple[str, ...] = ()


def failed(target: Target, reason: str) -> Outcome:
    """Return the outcome of a conversion that gave no file."""
    return Outcome(target, Verdict((reason,)))
