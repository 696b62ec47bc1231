"""List the cells: every model in every target with every combination of options."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from kedge_convert import job_checks
from kedge_convert.job import Job
from kedge_convert.matrix.config import (
    BuildConfig,
    BuildGates,
    ModelConfig,
    Options,
    Variant,
    placed,
)
from kedge_convert.sampling import Sampling
from kedge_convert.targets import Target, targets_for
from kedge_models.devices import device
from kedge_runtime.errors import UsageError, about


@dataclass(frozen=True)
class Cell:
    """Hold one artefact to build."""

    model: ModelConfig
    variant: Variant
    target: Target
    gates: BuildGates

    @property
    def name(self) -> str:
        """The unique file name, as `mobilenet.effort-fast.int8.tflite`; only varied options."""
        return self.target.file_name(self.model.name + self.variant.label)

    @property
    def options(self) -> Options:
        """The options of its conversion."""
        return self.variant.options

    @property
    def float32(self) -> str:
        """The name of the cell to compare its latency with."""
        return replace(self, target=replace(self.target, precision="float32")).name


@dataclass(frozen=True)
class CellGroup:
    """Hold the cells of one model and options: they share the loaded, prepared model."""

    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        """The model's name and the varied options."""
        return self.cells[0].model.name + self.cells[0].variant.label

    def rooted(self) -> "CellGroup":
        """Return it with absolute paths, for a process with another working folder."""
        model = placed(self.cells[0].model, Path.cwd())
        return CellGroup(tuple(replace(cell, model=model) for cell in self.cells))

    def job(self, targets: tuple[Target, ...], out: Path) -> Job:
        """Return the job of the converter."""
        model, options = self.cells[0].model, self.cells[0].options
        return Job(
            request=model.request(options),
            targets=targets,
            out=out,
            calibrate=Path(model.calibrate) if model.calibrate else None,
            sampling=Sampling(
                options.calibrate_count,
                options.check_count,
                options.seed,
                options.confidence_count,
            ),
            effort=options.effort,
            dynamic_batch=options.dynamic_batch,
            device=model.profile,
            gates=model.gates.on_device,
        )


def groups(config: BuildConfig) -> tuple[CellGroup, ...]:
    """Return all cells. Raises UsageError for an impossible target, device or gate."""
    found = tuple(
        CellGroup(tuple(_cells(config, model, variant)))
        for model in config.model
        for variant in config.options
    )
    if not found:
        raise UsageError("no [[model]] to build; docs/build.md shows one")
    names = {cell.name for group in found for cell in group.cells}
    for group in found:
        for cell in group.cells:
            _check(cell, names)
    return found


def _cells(config: BuildConfig, model: ModelConfig, variant: Variant) -> Iterator[Cell]:
    special = {target.name: target.gates for target in config.target}
    names = model.targets or tuple(special)
    if not names and model.device is None:
        raise UsageError(f"{model.name}: has no targets; add targets = [...] or a [[target]]")
    for target in targets_for(model.profile, ",".join(names) or None):
        own = special.get(str(target), BuildGates())
        yield Cell(model, variant, target, replace(model.gates, **own.limits))


def check_keys(group: CellGroup) -> None:
    """Raise UsageError for keys that the conversion needs, as far as its files tell."""
    with about(group.name):
        job_checks.check_missing(group.job(tuple(cell.target for cell in group.cells), Path()))


def _check(cell: Cell, names: set[str]) -> None:
    gates = cell.gates
    if gates.device:
        device(gates.device)
    if not cell.model.images and {"max_drop", "min_agreement"} & gates.limits.keys():
        raise UsageError(f"{cell.name}: max_drop and min_agreement need images; add images = DIR")
    if gates.max_drop is not None and cell.model.truth == "none":
        raise UsageError(f'{cell.name}: max_drop needs ground truth, but truth is "none"; drop one')
    if gates.max_latency_ratio is not None and cell.float32 not in names:
        raise UsageError(
            f"{cell.name}: max_latency_ratio compares with {cell.float32}; add its target"
        )
