"""A build as records: what every report is drawn from, and what docs/report.schema.json states."""

from dataclasses import dataclass
from typing import Literal

from kedge_convert.localise import Localisation
from kedge_runtime.drift.gates import Estimate, Verdict, worst
from kedge_runtime.drift.report import Drift

GateName = Literal[
    "conversion",
    "max_drop",
    "min_agreement",
    "max_bytes",
    "max_latency_ratio",
    "device",
    "baseline",
]


@dataclass(frozen=True)
class Gate:
    """One gate of one cell. `said`: the figure and the limit in words.

    `value` has its 95 % interval, or is exact: then its ends are itself. `images`: as many pictures
    would decide an inconclusive one, None where no number does.
    """

    name: GateName
    verdict: Verdict
    said: str
    limit: float | None = None
    value: Estimate | None = None
    images: int | None = None


@dataclass(frozen=True)
class Baseline:
    """What was accepted before (kedge.lock.toml). `changed`: the digest is another one."""

    digest: str
    bytes: int
    changed: bool
    drop: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class Cell:
    """One artefact: a model in a target with options.

    `path`: its file, or what was rejected; None, as `digest` and `bytes`, when there is none.
    `ratio`: its size to that of the float32 weights. `precision`, `method`, `ranges`, `kept`,
    `device`: how it was made and for what, as in the contract's provenance. `cached`: nothing was
    converted for it. `notes`: what should be known. `drift`: None where there are no pictures to
    measure it on; its gates are here.
    `latency_ratio`: to the float32 artefact of the same format. `by_layer`: docs/localisation.md.
    """

    name: str
    model: str
    target: str
    options: str
    verdict: Verdict
    gates: tuple[Gate, ...]
    notes: tuple[str, ...]
    cached: bool
    path: str | None = None
    digest: str | None = None
    bytes: int | None = None
    ratio: float | None = None
    precision: str | None = None
    method: str | None = None
    ranges: str | None = None
    kept: tuple[str, ...] | None = None
    device: str | None = None
    images: str | None = None
    drift: Drift | None = None
    latency_ratio: float | None = None
    by_layer: Localisation | None = None
    baseline: Baseline | None = None


@dataclass(frozen=True)
class Machine:
    """Where it was built and measured, as `kedge bench --json`."""

    processor: str
    cores: int
    memory_gb: float
    system: str
    python: str
    packages: dict[str, str]


@dataclass(frozen=True)
class Report:
    """One run of `kedge build`. `config`: the file; `out`: folder of the artefacts; `kedge`: the
    version that ran.
    """

    config: str
    out: str
    kedge: str
    machine: Machine
    verdict: Verdict
    cells: tuple[Cell, ...]
    command: Literal["build"] = "build"
    schema: Literal[1] = 1

    def count(self, verdict: Verdict) -> int:
        """Return how many cells have a verdict."""
        return sum(cell.verdict == verdict for cell in self.cells)


def verdict_of(gates: tuple[Gate, ...]) -> Verdict:
    """Return the worst verdict of some gates; nothing to miss is a pass."""
    return worst([gate.verdict for gate in gates] or ["PASS"])
