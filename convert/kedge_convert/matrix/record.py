"""Hold a build as records; the JSON Schema of `report.json` comes from their type hints."""

import dataclasses
import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from kedge_convert.drift.layers import Localisation
from kedge_runtime.drift.gates import Estimate, Gate, Verdict, worst
from kedge_runtime.drift.report import Drift, judged
from kedge_runtime.drift.sentences import needed

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
class GateReport:
    """Hold one gate of one cell. `message`: the figure and the limit in words.

    `value`: with its 95 % interval; the interval of an exact value is itself. `images_needed`: the
    number of images that would decide an inconclusive gate, None where no number does.
    """

    name: GateName
    verdict: Verdict
    message: str
    limit: float | None = None
    value: Estimate | None = None
    images_needed: int | None = None


def accuracy_gate(gate: Gate, images: int) -> GateReport:
    """Return the report of a gate of `kedge drift`, judged on so many images."""
    message = judged(gate)
    if gate.verdict == "INCONCLUSIVE":
        message += f"; {needed(gate, images)}"
    return GateReport(gate.name, gate.verdict, message, gate.limit, gate.value, gate.images_needed)


@dataclass(frozen=True)
class Baseline:
    """Hold the accepted artefact (kedge.lock.toml). `changed`: whether the digest differs."""

    digest: str
    bytes: int
    changed: bool
    drop: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class CellReport:
    """Hold one artefact: a model in a target with options.

    `path`: its file, rejected ones included; None, as `digest` and `bytes`, without a file.
    `ratio`: its size as a share of the float32 weights. `precision`, `method`, `ranges`,
    `float_layers`, `copied_layers`, `device`: as in the contract's provenance. `cached`: whether
    this run converted nothing for it. `folder`: of the images. `drift`: None without images; its
    gates are here.
    `latency_ratio`: to the float32 artefact of the same format. `by_layer`: docs/localisation.md.
    `converting`, `measuring`: the seconds that both took in this build, 0 where the cache had the
    result, None without a file or a measurement.
    """

    name: str
    model: str
    target: str
    options: str
    verdict: Verdict
    gates: tuple[GateReport, ...]
    notes: tuple[str, ...]
    cached: bool
    path: str | None = None
    digest: str | None = None
    bytes: int | None = None
    ratio: float | None = None
    precision: str | None = None
    method: str | None = None
    ranges: str | None = None
    float_layers: tuple[str, ...] | None = None
    copied_layers: tuple[str, ...] | None = None
    device: str | None = None
    folder: str | None = None
    drift: Drift | None = None
    latency_ratio: float | None = None
    by_layer: Localisation | None = None
    baseline: Baseline | None = None
    converting: float | None = None
    measuring: float | None = None


@dataclass(frozen=True)
class MachineReport:
    """Describe the machine of the build, as `kedge bench --json` does."""

    processor: str
    cores: int
    memory_gb: float
    system: str
    python: str
    packages: dict[str, str]


@dataclass(frozen=True)
class BuildReport:
    """Hold one run of `kedge build`.

    `config`: the file; `out`: the folder of the artefacts; `kedge`: the version; `date`: of the
    end of the run, ISO 8601 in UTC, empty where unknown.
    """

    config: str
    out: str
    kedge: str
    machine: MachineReport
    verdict: Verdict
    cells: tuple[CellReport, ...]
    date: str = ""
    command: Literal["build"] = "build"
    schema: Literal[1] = 1

    def count(self, verdict: Verdict) -> int:
        """Count the cells with a verdict."""
        return sum(cell.verdict == verdict for cell in self.cells)


def verdict_of(gates: tuple[GateReport, ...]) -> Verdict:
    """Return the worst verdict of some gates; PASS without any."""
    return worst([gate.verdict for gate in gates] or ["PASS"])


Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
PLAIN: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def schema() -> Schema:
    """Return the schema; every record is a definition under its module's and its own name."""
    definitions: dict[str, Schema] = {}
    root = _of(BuildReport, definitions)
    head = {"$schema": DIALECT, "title": "report.json of kedge build"}
    return {**head, **root, "$defs": dict(sorted(definitions.items()))}


def _of(kind: Any, definitions: dict[str, Schema]) -> Schema:
    if kind in PLAIN:
        return {"type": PLAIN[kind]}
    if dataclasses.is_dataclass(kind):
        return _record(kind, definitions)
    return _KINDS[get_origin(kind)](get_args(kind), definitions)


def _record(kind: Any, definitions: dict[str, Schema]) -> Schema:
    name = f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"
    if name not in definitions:
        definitions[name] = {}  # ends the recursion of a record that holds itself
        hints = get_type_hints(kind)
        definitions[name] = {
            "type": "object",
            "properties": {field: _of(hint, definitions) for field, hint in hints.items()},
            "required": list(hints),
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{name}"}


def _literal(args: tuple[Any, ...], definitions: dict[str, Schema]) -> Schema:
    return {"enum": list(args)}


def _tuple(args: tuple[Any, ...], definitions: dict[str, Schema]) -> Schema:
    return {"type": "array", "items": _of(args[0], definitions)}


def _dict(args: tuple[Any, ...], definitions: dict[str, Schema]) -> Schema:
    return {"type": "object", "additionalProperties": _of(args[1], definitions)}


def _union(args: tuple[Any, ...], definitions: dict[str, Schema]) -> Schema:
    null = [{"type": "null"}] if types.NoneType in args else []
    return {"anyOf": [_of(arg, definitions) for arg in args if arg is not types.NoneType] + null}


_KINDS: dict[Any, Callable[[tuple[Any, ...], dict[str, Schema]], Schema]] = {
    Literal: _literal,
    tuple: _tuple,
    dict: _dict,
    Union: _union,
    types.UnionType: _union,
}


def text() -> str:
    """Return the published file."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
