"""Plain data to records and back: what is wrong is named with its place, and nothing slips in."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from kedge_runtime.errors import ContractError
from kedge_runtime.records import decode, encode, shown


def _even(value: object) -> int:
    if not isinstance(value, int) or value % 2:
        raise ValueError(f"{value!r} is not even")
    return value


@dataclass(frozen=True)
class Leaf:
    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class Tree:
    leaf: Leaf
    count: int
    mode: Literal["a", "b"] = "a"
    pair: tuple[float, float] = (0.0, 0.0)
    leaves: tuple[Leaf, ...] = ()
    maybe: Leaf | None = None
    words: dict[str, str] = field(default_factory=dict)
    flag: bool = False
    even: Annotated[int, _even] = 0


@dataclass(frozen=True, kw_only=True)
class Pot:
    size: float = 1.0
    plant: str
    label: tuple[str] = ("",)


SMALL: dict[str, Any] = {"leaf": {"name": "x"}, "count": 1}

ROUND_TRIPS = [
    Tree(Leaf("x"), 1),
    Tree(
        Leaf("", -0.5), -3, "b", (1.5, 2.0), (Leaf("y"), Leaf("z")), Leaf("w"), {"k": "v"}, True, 4
    ),
]


@pytest.mark.parametrize("tree", ROUND_TRIPS)
def test_a_record_comes_back_from_plain_data_and_from_json(tree: Tree) -> None:
    assert decode(Tree, encode(tree), "tree") == tree
    assert decode(Tree, json.loads(json.dumps(encode(tree))), "tree") == tree


def test_defaults_fill_what_is_not_given() -> None:
    assert decode(Tree, SMALL, "tree") == Tree(Leaf("x"), 1)


def test_an_integer_is_a_float_where_one_is_expected() -> None:
    tree = decode(Tree, {**SMALL, "pair": [1, 2]}, "tree")
    assert tree.pair == (1.0, 2.0)
    assert all(type(value) is float for value in tree.pair)


def test_none_is_allowed_where_the_type_says_so() -> None:
    assert decode(Tree, {**SMALL, "maybe": None}, "tree").maybe is None


def test_fields_may_stand_in_any_order_and_tuples_hold_one() -> None:
    assert decode(Pot, {"plant": "x", "label": ["y"]}, "pot") == Pot(plant="x", label=("y",))
    with pytest.raises(ContractError, match=r"^pot: the key 'plant' is missing$"):
        decode(Pot, {"label": ["y"]}, "pot")
    with pytest.raises(ContractError, match=r"^pot.label: got 2 values, expected 1$"):
        decode(Pot, {"plant": "x", "label": ["y", "z"]}, "pot")


WRONG: dict[str, tuple[Any, str]] = {
    "no table": ([1], "tree: got [1], expected a table of fields"),
    "nothing": (None, "tree: got None, expected a table of fields"),
    "unknown key": ({**SMALL, "colour": 1}, "tree: unknown key 'colour'; known are leaf, count"),
    "missing key": ({"count": 1}, "tree: the key 'leaf' is missing"),
    "unknown key below": ({**SMALL, "leaf": {"name": "x", "n": 1}}, "tree.leaf: unknown key 'n'"),
    "missing key below": ({**SMALL, "leaf": {}}, "tree.leaf: the key 'name' is missing"),
    "text for a number": ({**SMALL, "count": "1"}, "tree.count: got '1', expected int"),
    "number for a text": ({**SMALL, "leaf": {"name": 1}}, "tree.leaf.name: got 1, expected str"),
    "float for an int": ({**SMALL, "count": 1.0}, "tree.count: got 1.0, expected int"),
    "bool for an int": ({**SMALL, "count": True}, "tree.count: got True, expected int"),
    "int for a bool": ({**SMALL, "flag": 1}, "tree.flag: got 1, expected bool"),
    "bool for a float": ({**SMALL, "pair": [True, 1]}, "tree.pair[0]: got True, expected float"),
    "no member of the literal": ({**SMALL, "mode": "c"}, "tree.mode: got 'c', allowed are a, b"),
    "a list for a literal": ({**SMALL, "mode": ["a"]}, "tree.mode: got ['a'], allowed are a, b"),
    "short tuple": ({**SMALL, "pair": [1]}, "tree.pair: got 1 values, expected 2"),
    "long tuple": ({**SMALL, "pair": [1, 2, 3]}, "tree.pair: got 3 values, expected 2"),
    "text for a tuple": ({**SMALL, "pair": "ab"}, "tree.pair: got 'ab', expected a list"),
    "wrong item": ({**SMALL, "leaves": [{"name": "x"}, 3]}, "tree.leaves[1]: got 3"),
    "text for a mapping": ({**SMALL, "words": "ab"}, "tree.words: got 'ab', expected a table"),
    "number in a mapping": ({**SMALL, "words": {"k": 1}}, "tree.words.k: got 1, expected str"),
    "key of a mapping": ({**SMALL, "words": {1: "v"}}, "tree.words: got 1, expected str"),
    "wrong optional": ({**SMALL, "maybe": 1}, "tree.maybe: got 1, expected a table"),
    "nan": ({**SMALL, "pair": [0, float("nan")]}, "tree.pair[1]: got nan, expected a finite"),
    "infinity": ({**SMALL, "pair": [0, float("-inf")]}, "tree.pair[1]: got -inf"),
    "what a reader refuses": ({**SMALL, "even": 3}, "tree.even: 3 is not even"),
    "two unknown keys": ({**SMALL, "b": 1, "a": 1}, "tree: unknown key 'a'; known are leaf, count"),
    "text for a float": ({**SMALL, "pair": ["1", 0]}, "tree.pair[0]: got '1', expected float"),
    "past a double": ({**SMALL, "pair": [10**400, 0]}, "tree.pair[0]: got 1000000"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_with_its_place(case: str) -> None:
    data, message = WRONG[case]
    with pytest.raises(ContractError) as caught:
        decode(Tree, data, "tree")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(ContractError) as caught:
        decode(Tree, {**SMALL, "count": "x" * 10_000}, "tree")
    assert str(caught.value) == f"tree.count: got '{'x' * 36}..., expected int"
    assert [len(shown(10**digits)) for digits in (38, 39, 40)] == [39, 40, 40]
    assert shown(10**39) == str(10**39)
