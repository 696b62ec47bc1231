"""A build as records, with the JSON Schema of `report.json` from their type hints."""

import dataclasses
import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from kedge_convert.drift.layers import Localisation
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
class GateReport:
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
class CellReport:
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
    kept: tuple[str, ...] | None = None
    device: str | None = None
    images: str | None = None
    drift: Drift | None = None
    latency_ratio: float | None = None
    by_layer: Localisation | None = None
    baseline: Baseline | None = None


@dataclass(frozen=True)
class MachineReport:
    """Where it was built and measured, as `kedge bench --json`."""

    processor: str
    cores: int
    memory_gb: float
    system: str
    python: str
    packages: dict[str, str]


@dataclass(frozen=True)
class BuildReport:
    """One run of `kedge build`. `config`: the file; `out`: folder of the artefacts; `kedge`: the
    version that ran.
    """

    config: str
    out: str
    kedge: str
    machine: MachineReport
    verdict: Verdict
    cells: tuple[CellReport, ...]
    command: Literal["build"] = "build"
    schema: Literal[1] = 1

    def count(self, verdict: Verdict) -> int:
        """Return how many cells have a verdict."""
        return sum(cell.verdict == verdict for cell in self.cells)


def verdict_of(gates: tuple[GateReport, ...]) -> Verdict:
    """Return the worst verdict of some gates; nothing to miss is a pass."""
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
        definitions[name] = {}  # a record within itself would end here
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
