"""The JSON Schema of `report.json`, from the records' type hints: no second description to drift.

`python -m kedge_convert.reports.schema > docs/report.schema.json` publishes it; a test holds the
published one equal.
"""

import dataclasses
import json
import sys
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from kedge_convert.reports.record import Report

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
PLAIN: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def schema() -> Schema:
    """Return the schema; every record is a definition under its module's and its own name."""
    definitions: dict[str, Schema] = {}
    root = _of(Report, definitions)
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
