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
    Quantisation,
    Tensor,
)
from kedge_runtime.artefact.provenance import Provenance
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
    alike = Normalisation("grey", 127.5, (1.0, 1.0, 1.0), (2.0, 2.0, 2.0))
    assert alike == Normalisation("grey", 127.5, (1.0,), (2.0,))
    with pytest.raises(ContractError, match="1 channel"):
        Normalisation("grey", 255.0, (0.485, 0.456, 0.406))
    with pytest.raises(ContractError, match="3 channels"):
        Normalisation("rgb", 255.0, (0.5,), (0.5,))


def test_the_order_of_tools_does_not_change_the_bytes() -> None:
    tools = dict(reversed(FULL.provenance.tools.items()))
    turned = replace(FULL, provenance=replace(FULL.provenance, tools=tools))
    assert turned.to_json() == FULL.to_json()


@pytest.mark.parametrize("schema", [None, 0, 4, "1", [1]])
def test_another_schema_is_refused_before_anything_else(schema: Any) -> None:
    text = json.dumps({**json.loads(FULL.to_json()), "schema": schema, "new_key": 1})
    with pytest.raises(ContractError, match="this kedge reads 1, 2, 3: install the kedge"):
        Contract.from_json(text)


NO_CONTRACTS: list[tuple[str | bytes, str]] = [
    ("", "the contract is no JSON: Expecting value"),
    ("{", "the contract is no JSON: Expecting property"),
    ("[" * 100_000, "the contract is no JSON: "),
    (b"\xff\xfe\xfd", "the contract is no JSON: "),
    ("[]", "the contract has schema None"),
    ("null", "the contract has schema None"),
    ("3", "the contract has schema None"),
    ('{"schema":1}', "contract: the key 'input' is missing"),
]


@pytest.mark.parametrize(("text", "message"), NO_CONTRACTS)
def test_what_is_no_contract_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        Contract.from_json(text)


NONSENSE: dict[str, tuple[Callable[[], Any], str]] = {
    "no height": (lambda: Geometry(0, 8), "input size is 0x8, allowed are 1x1 to 8192x8192"),
    "no width": (lambda: Geometry(8, 0), "input size is 8x0"),
    "negative width": (lambda: Geometry(8, -1), "input size is 8x-1"),
    "too high": (lambda: Geometry(8193, 8), "input size is 8193x8"),
    "too wide": (lambda: Geometry(8, 8193), "input size is 8x8193"),
    "crop too small": (lambda: Geometry(8, 8, crop_fraction=0.09), "crop_fraction is 0.09"),
    "crop above one": (lambda: Geometry(8, 8, crop_fraction=1.01), "allowed are 0.1 to 1"),
    "crop nan": (lambda: Geometry(8, 8, crop_fraction=float("nan")), "crop_fraction is nan"),
    "pillow's fit without its filter": (
        lambda: Geometry(8, 8, "area", "pillow_fit"),
        "fit pillow_fit needs a pillow filter, not area",
    ),
    "torchvision's fit without its filter": (
        lambda: Geometry(8, 8, "bilinear", "torchvision_crop"),
        "fit torchvision_crop needs a pillow filter, not bilinear",
    ),
    "divisor zero": (lambda: Normalisation(divisor=0.0), "divisor 0.0 and std"),
    "divisor nan": (lambda: Normalisation(divisor=float("nan")), "divisor nan"),
    "divisor infinite": (lambda: Normalisation(divisor=float("inf")), "divisor inf"),
    "std zero": (lambda: Normalisation(std=(1.0, 0.0, 1.0)), r"std \(1.0, 0.0, 1.0\) must be pos"),
    "std negative": (lambda: Normalisation(std=(1.0, 1.0, -1.0)), r"-1.0\) must be positive"),
    "std nan first": (lambda: Normalisation(std=(float("nan"), 1.0, 1.0)), r"std \(nan, 1.0, 1.0"),
    "std nan last": (lambda: Normalisation(std=(1.0, 1.0, float("nan"))), r"std \(1.0, 1.0, nan"),
    "mean infinite": (lambda: Normalisation(mean=(0.0, float("inf"), 0.0)), r"^mean \(0.0, inf, 0"),
    "mean nan": (lambda: Normalisation(mean=(float("nan"),) * 3), "must be finite numbers"),
    "two means": (
        lambda: Normalisation(mean=(1.0, 1.0)),
        r"mean is \(1.0, 1.0\): rgb images have 3",
    ),
    "four deviations": (
        lambda: Normalisation("bgr", std=(1.0,) * 4),
        r"^std is .*: bgr images have 3",
    ),
    "two grey means": (
        lambda: Normalisation("grey", 1.0, (2.0, 2.0)),
        "grey images have 1 channel$",
    ),
    "scale zero": (lambda: Quantisation(0.0), "quantisation scale is 0.0, it must be positive"),
    "scale negative": (lambda: Quantisation(-1.0), "scale is -1.0"),
    "scale nan": (lambda: Quantisation(float("nan")), "scale is nan"),
    "scale infinite": (lambda: Quantisation(float("inf")), "scale is inf"),
    "integer without scale": (lambda: Tensor("int8"), "a tensor of int8 needs a quantisation"),
    "unsigned without scale": (lambda: Tensor("uint8"), "a tensor of uint8 needs a quantisation"),
    "float with a scale": (
        lambda: Tensor("float16", Quantisation(1.0)),
        "a tensor of float16 takes no quantisation: leave it out, or state the integer dtype",
    ),
    "colour without an axis": (
        lambda: Input(Geometry(8, 8), Normalisation(), Tensor(layout="nhw")),
        "layout nhw has one channel, the colour is rgb: state the colour grey",
    ),
    "colour in a flat tensor": (
        lambda: Input(Geometry(8, 8), Normalisation("bgr"), Tensor(layout="flat")),
        "layout flat has one channel, the colour is bgr",
    ),
    "temperature zero": (lambda: Output(temperature=0.0), "temperature is 0.0, it must be pos"),
    "temperature negative": (lambda: Output(temperature=-2.0), "temperature is -2.0"),
    "temperature nan": (lambda: Output(temperature=float("nan")), "temperature is nan"),
    "temperature infinite": (lambda: Output(temperature=float("inf")), "temperature is inf"),
    "threshold above one": (
        lambda: Output("sigmoid", thresholds=(0.5, 1.1)),
        r"thresholds are \(0.5, 1.1\), allowed are 0 to 1",
    ),
    "threshold below zero": (lambda: Output("sigmoid", thresholds=(-0.1,)), r"\(-0.1,\), allowed"),
    "threshold nan": (lambda: Output("sigmoid", thresholds=(float("nan"),)), r"\(nan,\), allowed"),
    "label offset negative": (lambda: Output(label_offset=-1), "label_offset is -1, allowed are 0"),
    "label offset two": (lambda: Output(label_offset=2), "label_offset is 2, allowed are 0 and 1"),
    "a label of two lines": (lambda: Label("n1", "a\nb"), r"^label a.*\S: labels have no control"),
    "an id with an escape": (lambda: Label("\x1b[2J", "a"), r"not UTF-8: remove them$"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_a_record_refuses_nonsense_when_it_is_built(case: str) -> None:
    build, message = NONSENSE[case]
    with pytest.raises(ContractError, match=message):
        build()


def test_what_is_at_a_bound_is_allowed() -> None:
    assert Geometry(1, 8192, crop_fraction=0.1) != Geometry(8192, 1, crop_fraction=1.0)
    Geometry(8, 8, "pillow_box", "pillow_fit")
    Geometry(8, 8, "pillow_hamming", "torchvision_crop")
    assert Normalisation("rgb", 0.5, (0.0, -1.0, 0.0), (1.0, 0.25, 1e-9)).channels == 3
    assert Quantisation(1.0).zero_point == 0
    assert Output("sigmoid", thresholds=(0.0, 1.0), temperature=1.0).multi_label
    assert [Output(label_offset=offset).label_offset for offset in (0, 1)] == [0, 1]


def test_a_label_in_a_message_is_cut() -> None:
    cut = []
    for length in (79, 500):
        with pytest.raises(ContractError) as caught:
            Label("n1", "\n" + "x" * length)
        cut.append(str(caught.value).removeprefix("label ").partition(":")[0])
    assert [len(text) for text in cut] == [80, 80]


def test_shapes_follow_the_layout() -> None:
    size, grey = Geometry(4, 6), Normalisation("grey", 1.0, (0.0,), (1.0,))
    assert Input(size, Normalisation()).shape == (1, 4, 6, 3)
    layouts = [Input(size, grey, Tensor(layout=name)).shape for name in ("nchw", "nhw", "flat")]
    assert layouts == [(1, 1, 4, 6), (1, 4, 6), (1, 24)]


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
    ('"labels":[', '"labels":[{"id":"1"},', r"contract.labels\[0\]: the key 'name' is missing"),
    ('"labels":[', '"labels":[{"id":"1","n":""},', r"contract.labels\[0\]: unknown key 'n'"),
    ('"labels":[', '"labels":[{"id":"1","name":"\\n"},', "labels have no control characters"),
    ('"labels":[', '"labels":[7,', r"contract.labels\[0\]: got 7, expected a table"),
    ('"geometry":{', '"geometry":{"id":"a","name":"b"},"g":{', "unknown key 'g'"),
]


@pytest.mark.parametrize(("old", "new", "message"), IN_JSON)
def test_json_with_one_thing_wrong_names_it(old: str, new: str, message: str) -> None:
    text = FULL.to_json()
    assert text.count(old) == 1
    with pytest.raises(ContractError, match=message):
        Contract.from_json(text.replace(old, new))


@pytest.mark.parametrize(
    "name",
    [
        *("cr\u00e8me\u00a0br\u00fbl\u00e9e", "\u732b\u3000\u72ac", "thin\u2009space"),
        *(
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\U0001f469\u200d\U0001f680",
            "private \ue000",
        ),
    ],
)
def test_a_name_of_any_language_is_read_beside_plain_ones(name: str) -> None:
    labels = (Label("n0", "plain"), Label("n1", name), Label("n2", "plain, too"))
    contract = replace(FULL, labels=labels)
    assert Contract.from_json(contract.to_json()) == contract


def test_a_wrong_label_among_many_is_named_by_its_place() -> None:
    labels = tuple(Label(f"n{number}", f"class {number}") for number in range(1000))
    text = replace(FULL, labels=labels).to_json().replace('"name":"class 999"', '"n":""')
    with pytest.raises(ContractError, match=r"contract.labels\[999\]: unknown key 'n'"):
        Contract.from_json(text)


def test_a_contract_is_read_up_to_a_bound() -> None:
    text = FULL.to_json().encode()
    longest = text + b" " * (MAX_JSON - len(text))
    assert Contract.from_json(longest) == FULL
    with pytest.raises(ContractError, match=f"has {MAX_JSON + 1} bytes, allowed are {MAX_JSON}"):
        Contract.from_json(longest + b" ")
