"""Convert plain data (JSON, TOML) to frozen records and back, and check it.

The records' type hints are the schema: no second description exists that could differ.
"""

import dataclasses
import math
import types
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from kedge_runtime.errors import ContractError

Record = TypeVar("Record")


def decode(kind: type[Record], value: Any, where: str) -> Record:
    """Build the record `kind` from plain data.

    `where`: the key path in the data, which starts every message. Raises ContractError for a
    missing or unknown key, a wrong type, and a value outside the allowed ones.
    """
    if not isinstance(value, dict):
        raise ContractError(f"{where}: got {shown(value)}, expected a table of fields")
    hints = _hints(kind)
    if unknown := value.keys() - hints.keys():
        allowed = ", ".join(hints)
        raise ContractError(f"{where}: unknown key {shown(min(unknown))}; known are {allowed}")
    arguments = {key: _decode(hints[key], item, f"{where}.{key}") for key, item in value.items()}
    try:
        return kind(**arguments)
    except TypeError:
        required = [field.name for field in dataclasses.fields(kind) if _is_required(field)]  # type: ignore[arg-type]
        missing = next(name for name in required if name not in arguments)
        raise ContractError(f"{where}: the key {missing!r} is missing") from None


def encode(record: Any) -> dict[str, Any]:
    """Turn a record into plain data that `decode` turns back."""
    return dataclasses.asdict(record)


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    if kind not in _HINTS:
        _HINTS[kind] = get_type_hints(kind, include_extras=True)
    return _HINTS[kind]


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _decode(kind: Any, value: Any, where: str) -> Any:
    return _decoder(kind)(kind, value, where)


# Cached: a contract of 1000 labels needs the same few kinds 3000 times.
@cache
def _decoder(kind: Any) -> Callable[[Any, Any, str], Any]:
    if dataclasses.is_dataclass(kind):
        return decode
    return _DECODERS.get(get_origin(kind) or kind, _decode_exactly)


def _decode_exactly(kind: Any, value: Any, where: str) -> Any:
    if type(value) is not kind:
        raise ContractError(f"{where}: got {shown(value)}, expected {kind.__name__}")
    return value


def _decode_float(kind: Any, value: Any, where: str) -> Any:
    is_number = type(value) in (int, float)
    return _finite(value, where) if is_number else _decode_exactly(kind, value, where)


def _finite(value: float, where: str) -> float:
    # Python reads NaN and Infinity in JSON, which fail range checks or pass them all.
    try:
        if math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise ContractError(f"{where}: got {shown(value)}, expected a finite number")


def _decode_literal(kind: Any, value: Any, where: str) -> Any:
    if value not in get_args(kind):
        allowed = ", ".join(map(str, get_args(kind)))
        raise ContractError(f"{where}: got {shown(value)}, allowed are {allowed}")
    return value


def _decode_tuple(kind: Any, value: Any, where: str) -> Any:
    kinds = get_args(kind)
    if not isinstance(value, (list, tuple)):
        raise ContractError(f"{where}: got {shown(value)}, expected a list")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
        if (records := _all_at_once(kinds, value)) is not None:
            return records
    if len(kinds) != len(value):
        raise ContractError(f"{where}: got {len(value)} values, expected {len(kinds)}")
    pairs = list(zip(kinds, value, strict=True))
    try:
        return tuple(_decode(kind, item, where) for kind, item in pairs)
    except ContractError:
        # Once more, for the failing item's path: a thousand unused paths cost more than the items.
        return tuple(_decode(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(pairs))


def _all_at_once(kinds: tuple[Any, ...], values: Any) -> Any:
    """Return many records by the `of_many` of their kind, which returns None for wrong values."""
    of_many = getattr(kinds[0], "of_many", None) if kinds else None
    return of_many(values) if of_many else None


def _decode_optional(kind: Any, value: Any, where: str) -> Any:
    if value is None:
        return None
    (inner,) = (arg for arg in get_args(kind) if arg is not types.NoneType)
    return _decode(inner, value, where)


def _decode_annotated(kind: Any, value: Any, where: str) -> Any:
    """Decode by the function that a field of `Annotated[KIND, read]` names.

    The function raises ValueError for a value that isn't allowed.
    """
    (read,) = kind.__metadata__
    try:
        return read(value)
    except ValueError as error:
        raise ContractError(f"{where}: {error}") from None


def _decode_mapping(kind: Any, value: Any, where: str) -> Any:
    key_kind, item_kind = get_args(kind)
    if not isinstance(value, dict):
        raise ContractError(f"{where}: got {shown(value)}, expected a table")
    return {
        _decode(key_kind, key, where): _decode(item_kind, item, f"{where}.{key}")
        for key, item in value.items()
    }


_DECODERS: dict[Any, Callable[[Any, Any, str], Any]] = {
    float: _decode_float,
    Annotated: _decode_annotated,
    Literal: _decode_literal,
    tuple: _decode_tuple,
    dict: _decode_mapping,
    Union: _decode_optional,
    types.UnionType: _decode_optional,
}


def shown(value: Any) -> str:
    """Return plain data for a message: its repr in one line, at most 40 characters."""
    text = repr(value).replace("\n", " ")
    return text if len(text) <= 40 else text[:37] + "..."
