"""Contracts, configurations and archives of the right shape and any content, by hypothesis.

`fuzz.ways` damages bytes and words; here each record keeps its keys, and a few values are others.
"""

import io
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import seeds
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.labels import parse
from kedge_runtime.errors import KedgeError
from kedge_runtime.modelfile import archives
from kedge_runtime.modelfile.archives import read_members

pytest.importorskip("hypothesis")


Place = tuple[str | int, ...]
# The same inputs in every run: a fault that only some runs show is the long fuzzer's to find.
FIXED = settings(derandomize=True, deadline=None, max_examples=150, database=None)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["rgb", "grey", "int8", "logits", "nhwc", "flat", "pyramid", "sigmoid"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, at: Place = ()) -> list[Place]:
    """Return the place of every value within plain data."""
    pairs: Any = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    return [at, *(place for key, item in pairs for place in places(item, (*at, key)))]


def changed(value: Any, at: Place, new: Any) -> Any:
    """Return plain data with another value at a place."""
    if not at:
        return new
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = changed(value[at[0]], at[1:], new)
    return copy


CONTRACTS = [json.loads(content) for content in seeds.contracts()]
CHANGES = st.sampled_from(CONTRACTS).flatmap(
    lambda data: st.tuples(
        st.just(data), st.lists(st.tuples(st.sampled_from(places(data)), VALUES), max_size=3)
    )
)


def tried(call: Callable[[], object]) -> object:
    """Return the result, or None for a typed error of one line."""
    try:
        return call()
    except KedgeError as error:
        assert "\n" not in str(error)
        return None


@FIXED
@given(CHANGES)
def test_a_contract_with_other_values(found: tuple[Any, list[tuple[Place, Any]]]) -> None:
    data, changes = found
    for at, new in changes:
        if at in places(data):
            data = changed(data, at, new)
    contract = tried(lambda: Contract.from_json(json.dumps(data)))
    if isinstance(contract, Contract):
        assert Contract.from_json(contract.to_json()) == contract
        assert all(
            map(math.isfinite, (*contract.input.normalisation.std, contract.output.temperature))
        )


DTYPES = st.sampled_from(["<f4", "<f8", "|u1", "<i8", "|b1", "<U3", ">f4", "<f2"])
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)


def _npy(dtype: str, shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(shape, dtype))
    return file.getvalue()


@FIXED
@given(st.dictionaries(st.sampled_from(seeds.golden_names()), st.tuples(DTYPES, SHAPES)))
def test_a_golden_set_with_arrays_of_other_kinds(others: dict[str, tuple[str, Any]]) -> None:
    members = read_members(io.BytesIO(seeds.golden()))
    content = seeds.zipped({**members, **{name: _npy(*each) for name, each in others.items()}})
    golden = tried(lambda: Golden.from_bytes(content))
    if isinstance(golden, Golden):
        assert len(golden.images) == len(golden.pixels) == len(golden.confidence)


@FIXED
@given(st.dictionaries(st.text(max_size=9).filter(bool), st.tuples(DTYPES, SHAPES), max_size=4))
def test_arrays_of_any_kind_come_back_or_are_refused(made: dict[str, tuple[str, Any]]) -> None:
    content = seeds.zipped({f"{name}.npy": _npy(*each) for name, each in made.items()})
    arrays = tried(lambda: archives.read_arrays(content))
    if isinstance(arrays, dict):
        assert all(array.shape == made[name][1] for name, array in arrays.items() if name in made)


@FIXED
@given(st.text(max_size=60), st.booleans())
def test_a_label_file_of_any_text(text: str, repeated: bool) -> None:
    labels = tried(lambda: parse(text, "labels.txt", repeated=repeated))
    if isinstance(labels, tuple):
        assert len({label.id for label in labels}) == len(labels)
