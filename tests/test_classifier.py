"""The classifier on tiny models whose answers are known, and its refusal of a wrong contract."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_runtime.artefact import read_artefact, seal
from kedge_runtime.classifier import Classifier
from kedge_runtime.contract import Contract, Label, Output, Quantisation, Tensor
from kedge_runtime.engines import dtype_name, open_engine
from kedge_runtime.errors import ArtefactError, EngineError
from kedge_runtime.golden import Golden

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "dark": (0, 0, 0)}


def _needs_engine(form: str) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "tflite": "ai_edge_litert"}[form])


def _plain(colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.broadcast_to(np.array(colour, np.uint8), (33, 20, 3)))


@pytest.fixture
def classifier(form: str, artefacts: Path) -> Classifier:
    _needs_engine(form)
    return Classifier.open(artefacts / f"tiny.{form}", threads=1)


@pytest.mark.parametrize("name", COLOURS)
def test_a_plain_picture_is_named(classifier: Classifier, name: str) -> None:
    result = classifier(_plain(COLOURS[name]))
    assert result.best.name == name
    assert len(result.predictions) == 4
    assert sum(p.probability for p in result.predictions) == pytest.approx(1, abs=1e-5)


# By hand from `make_models.py`; int8 is right within two of its steps.
RED: dict[str, tuple[list[float], float]] = {
    "onnx": ([4, -4, -4, 2], 1e-5),
    "tflite": ([4, 0, 0, 4 / 3], 0.04),
}


def test_outputs_are_the_models_logits(classifier: Classifier, form: str) -> None:
    found = classifier.outputs(_plain(COLOURS["red"]))
    assert found.dtype == np.float32
    expected, tolerance = RED[form]
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_one_picture_after_another_gives_what_each_gives_alone(classifier: Classifier) -> None:
    pictures = [_plain(colour) for colour in COLOURS.values()]
    together = classifier.many(pictures, top=2)
    assert together == [classifier(picture, top=2) for picture in pictures]
    assert [len(result.predictions) for result in together] == [2, 2, 2, 2]
    assert [result.best.name for result in together] == list(COLOURS)


def test_an_output_is_not_overwritten_by_the_next_run(classifier: Classifier) -> None:
    first = classifier.outputs(_plain(COLOURS["red"]))
    kept = first.copy()
    classifier.outputs(_plain(COLOURS["blue"]))
    np.testing.assert_array_equal(first, kept)


LABELS = tuple(Label(str(i), str(i)) for i in range(5))
# What the contract says against what both engines say, and the word that the message must hold.
DISAGREEMENTS: dict[str, tuple[Callable[[Contract], Contract], str]] = {
    "height": (
        lambda c: replace(c, input=replace(c.input, geometry=replace(c.input.geometry, height=24))),
        "input shape",
    ),
    "layout": (
        lambda c: replace(c, input=replace(c.input, tensor=replace(c.input.tensor, layout="nchw"))),
        "input shape",
    ),
    "input dtype": (
        lambda c: replace(c, input=replace(c.input, tensor=Tensor("float16"))),
        "input is",
    ),
    "output dtype": (
        lambda c: replace(c, output=Output("logits", Tensor("uint8", Quantisation(0.1, 3)))),
        "output is",
    ),
    "one label too many": (lambda c: replace(c, labels=LABELS), "number of classes is 4"),
    "one label too few": (lambda c: replace(c, labels=LABELS[:3]), "number of classes is 4"),
    "no labels": (lambda c: replace(c, labels=()), "number of classes is 4"),
}


@pytest.mark.parametrize("case", DISAGREEMENTS)
def test_a_contract_that_disagrees_with_the_model_is_refused(
    form: str,
    case: str,
    contracts: dict[str, Contract],
    models: dict[str, bytes],
    golden: Golden,
    tmp_path: Path,
) -> None:
    _needs_engine(form)
    change, message = DISAGREEMENTS[case]
    path = tmp_path / f"m.{form}"
    path.write_bytes(seal(form, models[form], change(contracts[form]), golden))
    with pytest.raises(EngineError, match=f"{message}.*; convert again"):
        Classifier.open(path, threads=1)


def test_a_scale_off_by_a_hair_is_refused(
    contracts: dict[str, Contract], models: dict[str, bytes], golden: Golden, tmp_path: Path
) -> None:
    _needs_engine("tflite")
    contract = contracts["tflite"]
    wrong = Output("logits", Tensor("int8", Quantisation(0.01568, -128)))
    path = tmp_path / "m.tflite"
    path.write_bytes(seal("tflite", models["tflite"], replace(contract, output=wrong), golden))
    with pytest.raises(EngineError, match="output is"):
        Classifier.open(path, threads=1)


class _Engine:
    """An engine that says what it is told to say."""

    name = "made up"
    input_shape: tuple[int, ...] = (1, 8, 8, 3)

    def __init__(self, contract: Contract, output_shape: tuple[int, ...]) -> None:
        self.input, self.output = contract.input.tensor, contract.output.tensor
        self.output_shape = output_shape

    def run(self, tensor: NDArray[Any]) -> NDArray[Any]:
        raise AssertionError("no picture was given")


@pytest.mark.parametrize("shape", [(), (1,), (1, 2, 4), (1, 4, 2), (2, 4)])
def test_an_output_of_another_shape_is_refused(artefacts: Path, shape: tuple[int, ...]) -> None:
    artefact = read_artefact(artefacts / "tiny.onnx")
    with pytest.raises(EngineError, match="number of classes"):
        Classifier(artefact, _Engine(artefact.contract, shape))


@pytest.mark.parametrize("shape", [(1, 4), (4,), (1, 1, 1, 4)])
def test_an_output_with_one_number_a_class_is_taken(
    artefacts: Path, shape: tuple[int, ...]
) -> None:
    artefact = read_artefact(artefacts / "tiny.onnx")
    assert Classifier(artefact, _Engine(artefact.contract, shape)).contract == artefact.contract


@pytest.mark.parametrize("size", [0, 10, 150])
def test_a_damaged_model_is_refused_in_one_line(
    form: str,
    size: int,
    contracts: dict[str, Contract],
    models: dict[str, bytes],
    golden: Golden,
    tmp_path: Path,
) -> None:
    _needs_engine(form)
    path = tmp_path / f"m.{form}"
    path.write_bytes(seal(form, models[form][:size], contracts[form], golden))
    # Half an ONNX message may swallow the entries behind it.
    with pytest.raises((EngineError, ArtefactError)) as caught:
        Classifier.open(path, threads=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("old", "new"), [(b"MatMul", b"MatMux"), (b"weights", b"weightz")])
def test_an_onnx_that_onnxruntime_refuses_is_refused_in_one_line(
    old: bytes,
    new: bytes,
    contracts: dict[str, Contract],
    models: dict[str, bytes],
    golden: Golden,
    tmp_path: Path,
) -> None:
    _needs_engine("onnx")
    path = tmp_path / "m.onnx"
    model = models["onnx"].replace(old, new, 1)
    path.write_bytes(seal("onnx", model, contracts["onnx"], golden))
    with pytest.raises(EngineError, match="onnxruntime can't load it: ") as caught:
        Classifier.open(path, threads=1)
    assert "\n" not in str(caught.value)


def test_both_formats_have_an_engine_that_says_its_name(form: str, artefacts: Path) -> None:
    _needs_engine(form)
    engine = open_engine(form, artefacts / f"tiny.{form}", threads=2)
    assert engine.name == {"onnx": "onnxruntime", "tflite": "litert"}[form]
    assert engine.output_shape == (1, 4)


@pytest.mark.parametrize("dtype", ["int64", "object", "float64", "bool"])
def test_a_tensor_that_no_contract_can_hold_is_refused(dtype: str) -> None:
    with pytest.raises(EngineError, match=f"a tensor of {dtype}"):
        dtype_name(np.dtype(dtype))
