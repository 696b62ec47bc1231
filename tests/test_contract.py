"""The contract as JSON: the same contract gives the same bytes, and nonsense is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kedge_runtime.artefact.contract import (
    MAX_JSON,
    SCHEMA,
    Contract,
    Geometry,
    Input,
    Label,
    Normalisation,
    Output,
    Provenance,
    Quantisation,
    Tensor,
)
from kedge_runtime.errors import ContractError

FULL = Contract(
    Input(
        Geometry(224, 192, "area", "letterbox", 1.0, "ignore"),
        Normalisation("bgr", 1.0, (103.939, 116.779, 123.68), (57.375, 57.12, 58.395)),
        Tensor("uint8", Quantisation(1 / 3, 128), "nchw"),
    ),
    Output("logits", Tensor("int16", Quantisation(1e-9, 0)), "sigmoid", 1.7, (0.3, 0.4), 1),
    (Label("n1", "Köln, 猫"), Label("n2", "")),
    Provenance(
        "s", "w", "int8", "t", "c", 3, "prepared", "d", 100, {"keras": "3", "tensorflow": "2"}
    ),
)


def test_a_contract_comes_back_from_its_json(contracts: dict[str, Contract]) -> None:
    for contract in (FULL, *contracts.values()):
        assert Contract.from_json(contract.to_json()) == contract
        assert Contract.from_json(contract.to_json().encode()) == contract


def test_json_is_stable_sorted_and_plain() -> None:
    text = FULL.to_json()
    assert text == Contract.from_json(text).to_json()
    data = json.loads(text)
    assert text == json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert data["schema"] == SCHEMA == 2
    assert data["input"]["geometry"]["resize"] == "area"
    assert data["output"]["tensor"]["quantisation"] == {"scale": 1e-9, "zero_point": 0}


def test_a_contract_of_schema_1_still_opens() -> None:
    data = json.loads(FULL.to_json())
    del data["input"]["pipeline"]
    assert Contract.from_json(json.dumps({**data, "schema": 1})) == replace(FULL, schema=1)


def test_grey_images_have_one_mean_and_one_deviation() -> None:
    assert Normalisation("grey", 127.5, (1.0, 1.0, 1.0)).mean == (1.0,)
    with pytest.raises(ContractError, match="1 channel"):
        Normalisation("grey", 255.0, (0.485, 0.456, 0.406))
    with pytest.raises(ContractError, match="3 channels"):
        Normalisation("rgb", 255.0, (0.5,), (0.5,))


def test_the_order_of_tools_does_not_change_the_bytes() -> None:
    tools = dict(reversed(FULL.provenance.tools.items()))
    turned = replace(FULL, provenance=replace(FULL.provenance, tools=tools))
    assert turned.to_json() == FULL.to_json()


@pytest.mark.parametrize("schema", [None, 0, 3, "1", [1]])
def test_another_schema_is_refused_before_anything_else(schema: Any) -> None:
    text = json.dumps({**json.loads(FULL.to_json()), "schema": schema, "new_key": 1})
    with pytest.raises(ContractError, match="this kedge reads 1, 2: install the kedge"):
        Contract.from_json(text)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"schema":1}', b"\xff\xfe\xfd"])
def test_what_is_no_contract_is_refused(text: str | bytes) -> None:
    with pytest.raises(ContractError):
        Contract.from_json(text)


NONSENSE: dict[str, Callable[[], Any]] = {
    "no height": lambda: Geometry(0, 8),
    "negative width": lambda: Geometry(8, -1),
    "enormous": lambda: Geometry(8, 8193),
    "crop too small": lambda: Geometry(8, 8, crop_fraction=0.09),
    "crop above one": lambda: Geometry(8, 8, crop_fraction=1.01),
    "crop nan": lambda: Geometry(8, 8, crop_fraction=float("nan")),
    "divisor zero": lambda: Normalisation(divisor=0.0),
    "divisor nan": lambda: Normalisation(divisor=float("nan")),
    "divisor infinite": lambda: Normalisation(divisor=float("inf")),
    "std zero": lambda: Normalisation(std=(1.0, 0.0, 1.0)),
    "std negative": lambda: Normalisation(std=(1.0, 1.0, -1.0)),
    "std nan first": lambda: Normalisation(std=(float("nan"), 1.0, 1.0)),
    "std nan last": lambda: Normalisation(std=(1.0, 1.0, float("nan"))),
    "scale zero": lambda: Quantisation(0.0),
    "scale negative": lambda: Quantisation(-1.0),
    "scale nan": lambda: Quantisation(float("nan")),
    "scale infinite": lambda: Quantisation(float("inf")),
    "integer without scale": lambda: Tensor("int8"),
    "unsigned without scale": lambda: Tensor("uint8"),
    "temperature zero": lambda: Output(temperature=0.0),
    "temperature negative": lambda: Output(temperature=-2.0),
    "temperature nan": lambda: Output(temperature=float("nan")),
    "temperature infinite": lambda: Output(temperature=float("inf")),
    "threshold above one": lambda: Output("sigmoid", thresholds=(0.5, 1.1)),
    "threshold nan": lambda: Output("sigmoid", thresholds=(float("nan"),)),
    "label offset negative": lambda: Output(label_offset=-1),
    "label offset two": lambda: Output(label_offset=2),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_a_record_refuses_nonsense_when_it_is_built(case: str) -> None:
    with pytest.raises(ContractError):
        NONSENSE[case]()


IN_JSON = [
    ('"scale":1e-09', '"scale":NaN', "contract.output.tensor.quantisation.scale: got nan"),
    ('"scale":1e-09', '"scale":1e999', "got inf"),
    ('"mean":[103.939', '"mean":[NaN', r"contract.input.normalisation.mean\[0\]: got nan"),
    ('"zero_point":128', '"zero_point":true', "got True, expected int"),
    ('"zero_point":128', '"zero_point":1.5', "got 1.5, expected int"),
    ('"fit":"letterbox"', '"fit":"squeeze"', "got 'squeeze', allowed are crop, stretch, letterbox"),
    ('"height":224', '"height":0', "input size is 0x192"),
    ('"height":224,', "", "the key 'height' is missing"),
    ('"labels":[', '"labels":[{"id":1,"name":""},', r"contract.labels\[0\].id: got 1"),
]


@pytest.mark.parametrize(("old", "new", "message"), IN_JSON)
def test_json_with_one_thing_wrong_names_it(old: str, new: str, message: str) -> None:
    text = FULL.to_json()
    assert text.count(old) == 1
    with pytest.raises(ContractError, match=message):
        Contract.from_json(text.replace(old, new))


def test_a_contract_is_read_up_to_a_bound() -> None:
    text = FULL.to_json().encode()
    longest = text + b" " * (MAX_JSON - len(text))
    assert Contract.from_json(longest) == FULL
    with pytest.raises(ContractError, match=f"has {MAX_JSON + 1} bytes, allowed are {MAX_JSON}"):
        Contract.from_json(longest + b" ")
