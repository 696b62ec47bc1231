"""A float program is imported as the Keras model that gives the engine's answers, or not at all."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import nets
from conftest import Run
from fuzz import seeds
from fuzz.doors import DOORS
from hostile_models import changed
from kedge_convert.images import ImageSplit
from kedge_convert.load import registry
from kedge_convert.load.request import SourceRequest
from kedge_convert.program import preparable, proof
from kedge_convert.program.calls import OperatorImport, OperatorImportError
from kedge_convert.program.importing import imported
from kedge_convert.program.operators import RULES
from kedge_convert.program.reading import read
from kedge_convert.source import load_source
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.contract import Contract, Geometry, Label, Output, Tensor
from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.errors import ArtefactError, KedgeError, UsageError
from kedge_runtime.image.input_options import InputOptions
from kedge_runtime.output import quiet

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

SHAPE = (8, 8, 4)
MUTANTS = 60
NUMBERS = np.random.default_rng(0)
Body = Callable[[Any, Any], Any]


def numbers(*shape: int) -> Floats:
    return NUMBERS.normal(size=shape).astype(np.float32)


def program(body: Body, shape: tuple[int, ...] = SHAPE) -> bytes:
    """Return the float TFLite file of a function of TensorFlow and an image."""
    tf = require("tensorflow")
    function = tf.function(
        lambda image: body(tf, image), input_signature=[tf.TensorSpec((1, *shape), tf.float32)]
    )
    concrete = function.get_concrete_function()
    with quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], function)
        content: bytes = converter.convert()
    return content


def file_of(content: bytes) -> ModelContent:
    return ModelContent(Path("it.tflite"), "tflite", content)


def padded(mode: str) -> Body:
    return lambda tf, x: tf.pad(x, [[0, 0], [1, 2], [2, 1], [0, 0]], mode)


def pooled(name: str, padding: str) -> Body:
    return lambda tf, x: getattr(tf.nn, name)(x, 3, 2, padding)


# The operator that the case is about -> its function; a word behind it tells cases apart.
CASES: dict[str, Body] = {
    "ADD": lambda tf, x: x + x * numbers(4),
    "ADD of a map": lambda tf, x: x + numbers(1, 8, 8, 1),
    "AVERAGE_POOL_2D": pooled("avg_pool2d", "SAME"),
    "BATCH_MATMUL": lambda tf, x: tf.matmul(x, x, transpose_b=True),
    "CONCATENATION": lambda tf, x: tf.concat([x, tf.nn.relu(x)], -1),
    "CONV_2D": lambda tf, x: tf.nn.conv2d(x, numbers(3, 3, 4, 6), 2, "SAME"),
    "CONV_2D dilated": lambda tf, x: tf.nn.conv2d(x, numbers(3, 3, 4, 6), 1, "VALID", dilations=2),
    "CONV_2D fused": lambda tf, x: tf.nn.relu6(
        tf.nn.bias_add(tf.nn.conv2d(x, numbers(2, 3, 4, 6), (1, 1, 2, 1), "SAME"), numbers(6))
    ),
    "CONV_2D grouped": lambda tf, x: tf.nn.conv2d(x, numbers(3, 3, 2, 6), 1, "SAME"),
    "DEPTHWISE_CONV_2D": lambda tf, x: tf.nn.depthwise_conv2d(
        x, numbers(3, 3, 4, 2), (1, 2, 2, 1), "SAME"
    ),
    "DIV": lambda tf, x: 1.5 / (tf.abs(x) + 1.0),
    "ELU": lambda tf, x: tf.nn.elu(x),
    "EXP": lambda tf, x: tf.exp(x),
    "FULLY_CONNECTED": lambda tf, x: tf.matmul(tf.reshape(x, (1, -1)), numbers(256, 5)),
    "GATHER": lambda tf, x: tf.gather(x, [2, 0, 1], axis=3),
    "GELU": lambda tf, x: tf.nn.gelu(x, approximate=False),
    "GELU approximate": lambda tf, x: tf.nn.gelu(x, approximate=True),
    "HARD_SWISH": lambda tf, x: x * tf.nn.relu6(x + 3.0) * (1 / 6),
    "LEAKY_RELU": lambda tf, x: tf.nn.leaky_relu(x, 0.3),
    "LOGISTIC": lambda tf, x: x * tf.sigmoid(x),
    "MAXIMUM": lambda tf, x: tf.maximum(x, x[..., ::-1]),
    "MAX_POOL_2D": pooled("max_pool2d", "VALID"),
    "MEAN": lambda tf, x: tf.reduce_mean(x, (1, 2)),
    "MEAN kept": lambda tf, x: tf.reduce_mean(x, (1, 2), keepdims=True),
    "MEAN of channels": lambda tf, x: tf.reduce_mean(x, -1, keepdims=True),
    "MIRROR_PAD": padded("REFLECT"),
    "MIRROR_PAD symmetric": padded("SYMMETRIC"),
    "MUL": lambda tf, x: x * tf.sigmoid(tf.reduce_mean(x, (1, 2), keepdims=True)),
    "PACK": lambda tf, x: tf.stack([x, x * 2.0], axis=1),
    "PAD": padded("CONSTANT"),
    "PADV2": lambda tf, x: tf.pad(x, [[0, 0], [1, 1], [0, 0], [0, 0]], constant_values=-1.0),
    "REDUCE_MAX": lambda tf, x: tf.reduce_max(x, (1, 2)),
    "MINIMUM": lambda tf, x: tf.minimum(tf.maximum(x, 0.0), 1.0),
    "RESHAPE": lambda tf, x: tf.reshape(x, (1, 16, 16)),
    "RESIZE_BILINEAR": lambda tf, x: tf.image.resize(x, (5, 11)),
    "RESIZE_NEAREST_NEIGHBOR": lambda tf, x: tf.image.resize(x, (16, 16), "nearest"),
    "REVERSE_V2": lambda tf, x: tf.reverse(x, [3]),
    "SLICE": lambda tf, x: tf.slice(x, (0, 1, 2, 0), (1, 4, 3, 4)),
    "SOFTMAX": lambda tf, x: tf.nn.softmax(x),
    "SPLIT": lambda tf, x: tf.concat(tf.split(x, 2, -1)[::-1], -1),
    "SPLIT_V": lambda tf, x: tf.concat(tf.split(x, [1, 3], -1)[::-1], -1),
    "STRIDED_SLICE": lambda tf, x: x[:, 1:7:2, -5:, 1],
    "SUB": lambda tf, x: 0.5 - x,
    "SUM": lambda tf, x: tf.reduce_sum(x, (1, 2)),
    "TANH": lambda tf, x: tf.tanh(x),
    "TRANSPOSE": lambda tf, x: tf.transpose(x, (0, 3, 1, 2)),
    "TRANSPOSE_CONV": lambda tf, x: tf.nn.conv2d_transpose(
        x, numbers(3, 3, 5, 4), (1, 16, 16, 5), 2, "SAME"
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_operator_is_imported_as_the_engine_computes_it(case: str) -> None:
    content = program(CASES[case])
    parsed = read(content)
    assert case.split()[0] in {each.kind for each in parsed.operations}
    model = imported(parsed, "it")
    assert model.inputs[0].shape == (None, *SHAPE)
    assert proof.is_same(file_of(content), model, [numbers(1, *SHAPE) for _ in range(3)])


def test_a_batch_of_images_gives_what_each_gives_alone() -> None:
    images = numbers(3, *SHAPE)
    for case in CASES:
        model = imported(read(program(CASES[case])), "it")
        alone = [np.asarray(model(image[None])) for image in images]
        np.testing.assert_allclose(model(images), np.concatenate(alone), atol=1e-4, err_msg=case)


# What can't be imported -> words of the error, the operator's name first.
FOREIGN: dict[str, Body] = {
    "TILE": lambda tf, x: tf.tile(x, (1, 2, 1, 1)),
    "ADD of two values that differ in rank": lambda tf, x: x + tf.reduce_mean(x, (1, 2)),
    "CONCATENATION with a constant": lambda tf, x: tf.concat([x, numbers(1, 8, 8, 1)], -1),
    "RESHAPE that mixes the images of a batch": lambda tf, x: tf.reshape(x, (64, 4)) * 2.0,
    "RESIZE_BILINEAR that doesn't count from pixels' centres": (
        lambda tf, x: tf.compat.v1.image.resize_bilinear(x, (5, 11), align_corners=True)
    ),
}


@pytest.mark.parametrize("reason", FOREIGN)
def test_what_cant_be_imported_is_named(reason: str) -> None:
    content = program(FOREIGN[reason])
    with pytest.raises(OperatorImportError, match=f"^{reason}$"):
        imported(read(content), "it")


def test_a_wrong_import_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    content = program(CASES["LEAKY_RELU"])
    monkeypatch.setitem(RULES, "LEAKY_RELU", RULES["RELU"])
    model = imported(read(content), "it")
    assert not proof.is_same(file_of(content), model, [numbers(1, *SHAPE)])


def test_layers_keep_the_names_that_they_had() -> None:
    keras = require("keras")
    # The last tensor is named by TensorFlow.
    layers = (keras.layers.Conv2D(3, 3, name="stem"), keras.layers.GlobalAveragePooling2D())
    model = keras.Sequential([keras.Input(SHAPE), *layers])
    content = program(lambda tf, x: model(x))
    assert "stem" in [
        layer.name for layer in imported(read(content), "it", frozenset({"stem"})).layers
    ]


@pytest.fixture
def request_of(tmp_path: Path) -> Callable[[Path], SourceRequest]:
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\nthree\nfour\nfive\n")
    pixels = InputOptions(preprocess="image_dataset", normalisation="tf")
    return lambda path: SourceRequest(str(path), pixels=pixels, labels=str(labels))


@pytest.fixture
def images(tmp_path: Path) -> ImageSplit:
    paths = []
    for i, picture in enumerate(nets.pictures(6)):
        paths.append(tmp_path / f"{i}.png")
        cv2.imwrite(str(paths[-1]), np.clip(picture * 127 + 128, 0, 255).astype(np.uint8))
    return ImageSplit(tuple(paths), ())


def saved(model: Any, folder: Path) -> Path:
    with quiet():
        model.export(folder / "it", verbose=False)
    return folder / "it"


def float_file(model: Any, folder: Path, batch: int | None = None) -> Path:
    path = folder / "it.tflite"
    keras, tf = require("keras"), require("tensorflow")
    image = keras.Input(batch_shape=(batch, *model.inputs[0].shape[1:]))
    with quiet():
        converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, model(image)))
        path.write_bytes(converter.convert())
    return path


@pytest.mark.parametrize("name", ["mobile", "squeeze_excite", "residual", "separable", "elu"])
def test_a_network_has_the_same_weights_whatever_it_was_made_by(
    name: str, request_of: Callable[[Path], SourceRequest], images: ImageSplit, tmp_path: Path
) -> None:
    model = nets.make(name)
    model.save(tmp_path / "it.keras")
    # Of an open batch the check refuses dilated convolutions: their file states other shapes.
    paths = (tmp_path / "it.keras", saved(model, tmp_path), float_file(model, tmp_path, 1))
    found = [preparable.preparable(load_source(request_of(path)), images) for path in paths]
    assert [each.reason for each in found] == ["", "", ""]
    first, *others = (preparable.kernels(each.source.model) for each in found if each.source)
    assert len(first) > 1
    for kernels in others:
        assert len(kernels) == len(first)
        for one, other in zip(first, kernels, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_an_operator_that_cant_be_imported_leaves_a_graph_its_stock_weights(
    request_of: Callable[[Path], SourceRequest], images: ImageSplit, tmp_path: Path
) -> None:
    keras = require("keras")
    picture = keras.Input((nets.SIDE, nets.SIDE, 3))
    tiled = keras.ops.tile(keras.layers.Conv2D(4, 3)(picture), (1, 2, 1, 1))
    pooled = keras.layers.GlobalAveragePooling2D()(tiled)
    model = keras.Model(picture, keras.layers.Dense(5)(pooled))
    graph = preparable.preparable(load_source(request_of(saved(model, tmp_path))), images)
    assert graph == preparable.Preparable(None, "no rule imports the operator TILE")
    model.save(tmp_path / "it.keras")
    layers = preparable.preparable(load_source(request_of(tmp_path / "it.keras")), images)
    assert layers.source is not None
    assert layers.reason == "no rule imports the operator TILE"


def test_an_import_that_answers_otherwise_is_not_used(
    request_of: Callable[[Path], SourceRequest],
    images: ImageSplit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = saved(nets.make("chain"), tmp_path)
    monkeypatch.setitem(RULES, "MEAN", largest)
    found = preparable.preparable(load_source(request_of(path)), images)
    assert found == preparable.Preparable(None, preparable.INEXACT)


def largest(call: OperatorImport) -> Any:
    """Return the largest numbers of a map, where the operator gives their mean."""
    layer = require("keras").layers.GlobalMaxPooling2D(keepdims=bool(call.options.keepDims))
    return layer(call.value())


def test_a_float_file_of_any_program_is_a_source(
    request_of: Callable[[Path], SourceRequest], tmp_path: Path
) -> None:
    model = nets.make("mobile")
    path = float_file(model, tmp_path)
    assert registry.kind_of(path) == "TFLite file"
    source = load_source(request_of(path))
    pictures = nets.pictures(4)
    expected = np.asarray(model(pictures, training=False))
    answers = source.logits(iter(pictures[:, None]))
    np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-5)


def test_an_artefact_brings_its_contract(
    contracts: dict[str, Contract], golden: Golden, tmp_path: Path
) -> None:
    path = float_file(nets.make("mobile"), tmp_path)
    square = Geometry(nets.SIDE, nets.SIDE, resize="pyramid", fit="stretch", crop_fraction=1.0)
    pixels = replace(contracts["tflite"].input, geometry=square, tensor=Tensor())
    labels = tuple(Label(f"t{i}", f"name {i}") for i in range(5))
    contract = replace(
        contracts["tflite"], input=pixels, output=Output("logits", Tensor()), labels=labels
    )
    path.write_bytes(seal("tflite", path.read_bytes(), contract, golden))
    source = load_source(SourceRequest(str(path)))
    assert source.labels == contract.labels
    assert source.input.geometry == contract.input.geometry
    assert source.input.normalisation == contract.input.normalisation


def test_a_quantised_file_is_refused_in_a_line(shared: Path) -> None:
    path = shared / "data" / "edgetpu" / "tf2_mobilenet_v2_1.0_224_ptq.tflite"
    with pytest.raises(UsageError, match="its weights are int8; kedge converts float32 and"):
        registry.check(SourceRequest(str(path)))


def test_a_file_with_an_unknown_operator_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "it.tflite"
    path.write_bytes(program(FOREIGN["TILE"]))
    with pytest.raises(UsageError, match="can't import its operator TILE: give the model"):
        registry.load(SourceRequest(str(path)))


def test_a_damaged_file_is_refused_before_anything_else_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "it.tflite"
    content = program(CASES["CONV_2D"])
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtefactError, match="copy it again"):
        registry.check(SourceRequest(str(path)))


def test_an_operator_that_keras_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(call: OperatorImport) -> None:
        raise ValueError("no such size")

    content = program(CASES["TANH"])
    monkeypatch.setitem(RULES, "TANH", refuse)
    with pytest.raises(OperatorImportError, match=r"^TANH that Keras lacks \(no such size\)$"):
        imported(read(content), "it")


def test_a_program_that_ignores_its_image_is_refused() -> None:
    with pytest.raises(OperatorImportError, match="OUTPUT of constants"):
        imported(read(program(lambda tf, x: tf.constant(numbers(1, 5)))), "it")


def test_a_mutant_is_a_source_or_refused_in_a_line(tmp_path: Path) -> None:
    """Files whose structure was changed: load, or one line; never a bug of kedge's."""
    path, ends = tmp_path / "it.tflite", Counter[str]()
    for number in range(MUTANTS):
        path.write_bytes(DOORS["program"].make("program", 17, number))
        try:
            registry.load(SourceRequest(str(path)))
            ends["loaded"] += 1
        except KedgeError as error:
            assert "\n" not in str(error)
            ends["refused"] += 1
    assert min(ends[word] for word in ("loaded", "refused")) > 0


def without_numbers(model: Any) -> None:
    """Make every constant that could be a kernel NaN."""
    for buffer in model.buffers:
        if buffer.data is not None and len(buffer.data) > 64:
            buffer.data = np.full(len(buffer.data) // 4, np.nan, np.float32).view(np.uint8)


def of_another_beta(model: Any) -> None:
    softmax = model.subgraphs[0].operators[-1]
    assert hasattr(softmax.builtinOptions, "beta")
    softmax.builtinOptions.beta = 2.0


def backwards(model: Any) -> None:
    """Let the first operator read what the last one writes."""
    operators = model.subgraphs[0].operators
    operators[0].inputs[0] = operators[-1].outputs[0]


# A change to a float file -> words of the line that refuses it as a source.
HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "kernels of NaN": (without_numbers, "are not finite (NaN or infinite): train or save it again"),
    "a rule's limit": (of_another_beta, "can't import its operator SOFTMAX with a beta of 2.0"),
    "a circle": (backwards, "refused, an invalid .tflite model"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gets_one_line_and_exit_code_2(
    tmp_path: Path, pictures: Path, kedge: Run, name: str
) -> None:
    change, words = HOSTILE[name]
    path, labels, out = tmp_path / "it.tflite", tmp_path / "labels.txt", tmp_path / "out"
    path.write_bytes(changed("tflite", seeds.float_program(), change))
    labels.write_text("one\ntwo\nthree\nfour\nfive\n")
    options = ["--preprocess", "image_dataset", "--normalisation", "tf", "--to", "tflite:int8"]
    files = ("--labels", labels, "--calibrate", pictures, "--out", out)
    code, printed, err = kedge("convert", path, *options, *files)
    assert (code, printed) == (2, "")
    assert [line for line in err.splitlines() if words in line] == err.splitlines()[-1:]
    assert not out.exists()
