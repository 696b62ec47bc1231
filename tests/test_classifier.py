"""The classifier on tiny models whose answers are known, and its refusal of a wrong contract."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Contract, Label, Output, Quantisation, Tensor
from kedge_runtime.artefact.file import Artefact, read_artefact, seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import Result
from kedge_runtime.engines.base import Engine, Port, dtype_name
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.errors import ArtefactError, EngineError, ImageError, UsageError
from kedge_runtime.image.objects import Source

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
    together = classifier(pictures, top=2)
    assert together == [classifier(picture, top=2) for picture in pictures]
    assert [len(result.predictions) for result in together] == [2, 2, 2, 2]
    assert [result.best.name for result in together] == list(COLOURS)


def test_an_output_is_not_overwritten_by_the_next_run(classifier: Classifier) -> None:
    first = classifier.outputs(_plain(COLOURS["red"]))
    kept = first.copy()
    classifier.outputs(_plain(COLOURS["blue"]))
    np.testing.assert_array_equal(first, kept)


def test_a_list_ends_at_the_first_bad_picture_and_says_which(
    classifier: Classifier, tmp_path: Path
) -> None:
    missing = tmp_path / "none.jpg"
    pictures: list[Source] = [_plain(COLOURS["red"]), missing, _plain(COLOURS["blue"])]
    with pytest.raises(ImageError, match=r"^image 2 of 3: .*none\.jpg: no such file"):
        classifier(pictures)
    assert classifier([]) == []


def test_each_goes_on_after_a_bad_picture(classifier: Classifier) -> None:
    pictures: list[Source] = [_plain(COLOURS["red"]), b"no picture", b"", _plain(COLOURS["blue"])]
    first, second, third, fourth = classifier.each(pictures, top=1)
    assert isinstance(first, Result) and first.best.name == "red"
    assert isinstance(second, ImageError) and isinstance(third, ImageError)
    assert fourth == classifier(pictures[3], top=1)


def test_a_camera_frame_says_its_colour_order(classifier: Classifier) -> None:
    frame = _plain(COLOURS["red"])[..., ::-1]
    assert classifier(frame).best.name == "blue"
    assert classifier(frame, colour="bgr") == classifier(_plain(COLOURS["red"]))
    (answer,) = classifier.each([frame], colour="bgr")
    assert isinstance(answer, Result) and answer.best.name == "red"


@pytest.mark.parametrize("source", ["red.png", Path("red.png"), b"bytes"])
def test_a_file_has_its_own_colour_order(classifier: Classifier, source: Any) -> None:
    with pytest.raises(UsageError, match="colour='bgr' is for arrays"):
        classifier(source, colour="bgr")


def test_probabilities_are_those_of_the_answer(classifier: Classifier) -> None:
    values = classifier.probabilities(_plain(COLOURS["green"]))
    assert values.dtype == np.float32
    assert values.sum() == pytest.approx(1, abs=1e-6)
    result = classifier(_plain(COLOURS["green"]))
    assert [values[p.index] for p in result.predictions] == sorted(values, reverse=True)


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
    "a background too many": (
        lambda c: replace(c, output=replace(c.output, label_offset=1)),
        "number of classes is 4",
    ),
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


class _Engine(Engine):
    """An engine that says what it is told to say."""

    name = "made up"

    def __init__(self, contract: Contract, output_shape: tuple[int, ...]) -> None:
        taken, given = contract.input.tensor, contract.output.tensor
        super().__init__(Port((1, 8, 8, 3), taken), Port(output_shape, given))

    def set(self, tensors: NDArray[Any]) -> None:
        raise AssertionError("no picture was given")

    def invoke(self) -> None:
        raise AssertionError("no picture was given")

    def get(self) -> NDArray[Any]:
        raise AssertionError("no picture was given")

    def release(self) -> None:
        raise AssertionError("nobody closes it")


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


class _Spatial(_Engine):
    """An engine that gives the numbers from 0 on."""

    def run(self, tensor: NDArray[Any]) -> NDArray[Any]:
        return np.arange(np.prod(self.output_shape), dtype=np.float32).reshape(self.output_shape)


def _featured(artefact: Artefact) -> Artefact:
    output = replace(artefact.contract.output, kind="features")
    return replace(artefact, contract=replace(artefact.contract, output=output, labels=()))


@pytest.mark.parametrize("shape", [(1, 6), (1, 2, 2, 3), (1, 3, 2, 2)])
def test_features_keep_the_models_shape(artefacts: Path, shape: tuple[int, ...]) -> None:
    artefact = _featured(read_artefact(artefacts / "tiny.onnx"))
    classifier = Classifier(artefact, _Spatial(artefact.contract, shape))
    found = classifier.features(_plain(COLOURS["red"]))
    assert found.shape == shape[1:]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.ravel(), np.arange(found.size))


def test_features_are_the_models_numbers_untouched(
    form: str,
    contracts: dict[str, Contract],
    models: dict[str, bytes],
    golden: Golden,
    tmp_path: Path,
) -> None:
    _needs_engine(form)
    contract = contracts[form]
    path = tmp_path / f"m.{form}"
    output = replace(contract.output, kind="features", temperature=3.0)
    content = seal(form, models[form], replace(contract, output=output, labels=()), golden)
    path.write_bytes(content)
    expected, tolerance = RED[form]
    found = Classifier.open(path, threads=1).features(_plain(COLOURS["red"]))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_features_are_no_answers_and_answers_no_features(artefacts: Path) -> None:
    artefact = read_artefact(artefacts / "tiny.onnx")
    featured = _featured(artefact)
    with pytest.raises(UsageError, match=r"outputs features, not classes; .*classifier\.features"):
        Classifier(featured, _Spatial(featured.contract, (1, 6)))(_plain(COLOURS["red"]))
    with pytest.raises(UsageError, match=r"outputs logits, not features; .*include_top=False"):
        Classifier(artefact, _Spatial(artefact.contract, (1, 4))).features(_plain(COLOURS["red"]))


class _Broken(_Engine):
    """An engine that gives no number."""

    def run(self, tensor: NDArray[Any]) -> NDArray[Any]:
        return np.array([[0, 1, np.nan, 2]], np.float32)


def test_an_answer_that_is_no_number_is_an_error(artefacts: Path) -> None:
    artefact = read_artefact(artefacts / "tiny.onnx")
    with pytest.raises(EngineError, match="aren't finite"):
        Classifier(artefact, _Broken(artefact.contract, (1, 4)))(_plain(COLOURS["red"]))


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


def test_an_onnx_that_onnxruntime_refuses_is_refused_in_one_line(
    contracts: dict[str, Contract],
    models: dict[str, bytes],
    golden: Golden,
    tmp_path: Path,
) -> None:
    _needs_engine("onnx")
    path = tmp_path / "m.onnx"
    model = models["onnx"].replace(b"MatMul", b"MatMux", 1)
    path.write_bytes(seal("onnx", model, contracts["onnx"], golden))
    with pytest.raises(EngineError, match="onnxruntime can't load it: ") as caught:
        Classifier.open(path, threads=1)
    assert "\n" not in str(caught.value)


def test_both_formats_have_an_engine_that_says_its_name(form: str, artefacts: Path) -> None:
    _needs_engine(form)
    engine = open_engine(read_content(artefacts / f"tiny.{form}"), EngineOptions(threads=2))
    assert engine.name == {"onnx": "onnxruntime", "tflite": "litert"}[form]
    assert engine.output_shape == (1, 4)


@pytest.mark.parametrize("dtype", ["int64", "object", "float64", "bool"])
def test_a_tensor_that_no_contract_can_hold_is_refused(dtype: str) -> None:
    with pytest.raises(EngineError, match=f"an input or output of {dtype}"):
        dtype_name(np.dtype(dtype))
