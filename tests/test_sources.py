"""Every kind of source, converted and held against what its network answered beforehand."""

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import nets
from kedge_convert import pipeline
from kedge_convert.export.formats import FORMATS
from kedge_convert.images import tensors
from kedge_convert.job import Job
from kedge_convert.load.registry import KINDS, kind_of, load
from kedge_convert.load.request import SourceRequest
from kedge_convert.sampling import Sampling
from kedge_convert.source import Source, load_source
from kedge_convert.targets import TARGETS, parse_targets
from kedge_convert.toolkit import require
from kedge_convert.verdict import UserLimits
from kedge_convert.worker.progress import Progress
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.artefact.kinds import Kind
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import probabilities
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.errors import ArtefactError, UsageError
from kedge_runtime.image.input_options import InputOptions
from kedge_runtime.image.pipelines import NORMALISATIONS
from kedge_runtime.output import quiet

PICTURES = nets.pictures(6)
LOOSE = {"int8": 0.1}  # in probability, for a net of random weights
LABELS = "one\ntwo\nthree\nfour\nfive\n"


@pytest.fixture(scope="module")
def tf() -> Any:
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    return require("tensorflow")


@dataclass(frozen=True)
class Case:
    """A network, how it is saved, and what the contract must say of it.

    `save(tf, model, folder)` returns what the user names. `model` gives the answers expected.
    """

    save: Callable[[Any, Any, Path], Path]
    model: Callable[[], Any]
    kind: Kind = "softmax"
    ships: Kind = "logits"
    size: str | None = None


def net(activation: str | None = "softmax") -> Any:
    """Return a small network of five classes, [n, 12, 12, 3] -> [n, 5]."""
    keras = require("keras")
    model = nets.make("mobile", seed=3)
    return keras.Model(model.inputs[0], keras.layers.Activation(activation)(model.outputs[0]))


def with_lambda() -> Any:
    """Return the network with code in it, which a SavedModel holds as a graph."""
    keras = require("keras")
    model = net("linear")
    half = keras.layers.Lambda(lambda value: value * 0.5)(model.outputs[0])
    return keras.Model(model.inputs[0], keras.layers.Softmax()(half))


def body(pooled: bool) -> Any:
    """Return a network without its top."""
    keras = require("keras")
    model = nets.make("mobile", seed=3)
    maps = model.layers[-3].output
    return keras.Model(model.inputs[0], model.layers[-2].output if pooled else maps)


def keras_file(tf: Any, model: Any, folder: Path) -> Path:
    model.save(folder / "it.keras")
    return folder / "it.keras"


def hdf5_file(tf: Any, model: Any, folder: Path) -> Path:
    model.save(folder / "it.h5")
    return folder / "it.h5"


def architecture(tf: Any, model: Any, folder: Path) -> Path:
    (folder / "model.json").write_text(model.to_json())
    return folder / "model.json"


def exported(tf: Any, model: Any, folder: Path) -> Path:
    with quiet():
        model.export(folder / "it", verbose=False)
    return folder / "it"


def module(
    before: Callable[[Any, Any], Any] = lambda tf, images: images,
    after: Callable[[Any, Any], Any] = lambda tf, numbers: numbers,
    dtype: str = "float32",
    side: int | None = nets.SIDE,
) -> Callable[[Any, Any, Path], Path]:
    """Return a way to save as TF-Hub does: a tf.Module of one signature, nothing of Keras left."""

    def save(tf: Any, model: Any, folder: Path) -> Path:
        class Module(tf.Module):  # type: ignore[misc]
            @tf.function(input_signature=[tf.TensorSpec((None, side, side, 3), dtype)])  # type: ignore[untyped-decorator]
            def run(self, images: Any) -> Any:
                answer = after(tf, model(before(tf, images), training=False))
                return answer if isinstance(answer, dict) else {"answer": answer}

        made = Module()
        made.kept = list(model.variables)
        tf.saved_model.save(made, str(folder / "it"), signatures=made.run)
        return folder / "it"

    return save


def softmax_by_hand(tf: Any, numbers: Any) -> Any:
    powers = tf.exp(numbers)
    return powers / tf.reduce_sum(powers, -1, keepdims=True)


CASES = {
    "a .keras file": Case(keras_file, net),
    "a .keras file of logits": Case(keras_file, lambda: net("linear"), "logits"),
    "a .keras file of sigmoids": Case(keras_file, lambda: net("sigmoid"), "sigmoid"),
    "an .h5 file": Case(hdf5_file, net),
    "features": Case(keras_file, lambda: body(True), "features", "features"),
    "feature maps": Case(hdf5_file, lambda: body(False), "features", "features"),
    "an exported model": Case(exported, net),
    "an exported model with a Lambda": Case(exported, with_lambda),
    "exported feature maps": Case(exported, lambda: body(False), "features", "features"),
    "a module of probabilities": Case(module(), net),
    "a module of logits": Case(module(), lambda: net("linear"), "logits"),
    "a module of sigmoids": Case(module(), lambda: net("sigmoid"), "sigmoid"),
    "a module that reshapes its softmax": Case(
        module(after=lambda tf, numbers: tf.reshape(tf.identity(numbers), (-1, 5))), net
    ),
    "a module with a softmax by hand": Case(
        module(after=softmax_by_hand), lambda: net("linear"), "softmax", "softmax"
    ),
    "a module of several answers": Case(
        module(after=lambda tf, numbers: {"z": numbers * 9, "logits": numbers, "a": numbers * 0}),
        lambda: net("linear"),
        "logits",
    ),
    "a module of any size": Case(module(side=None), net, size="12"),
}


TF = InputOptions("imagenet", "tf")


def loaded(tf: Any, folder: Path, case: Case, **more: Any) -> tuple[Source, Floats]:
    """Return the source of a case, and what its network answers to PICTURES."""
    model = case.model()
    path = case.save(tf, model, folder)
    (folder / "labels").write_text(LABELS)
    labels = None if case.kind == "features" else str(folder / "labels")
    head = "features" if len(model.outputs[0].shape) == 4 else None
    told = {"pixels": TF, "labels": labels, "size": case.size, "head": head, **more}
    answers = np.asarray(model(PICTURES))
    if case.ships == "softmax":
        answers = np.asarray(softmax_by_hand(tf, answers))
    elif case.kind == "logits":
        answers = np.asarray(tf.nn.softmax(answers))
    return load_source(SourceRequest(str(path), **told)), answers.reshape(len(PICTURES), -1)


@pytest.mark.parametrize("name", CASES)
def test_a_source_answers_and_converts_as_its_network(tf: Any, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    source, expected = loaded(tf, tmp_path, case)
    assert (source.head, source.output.kind) == (case.kind, case.ships)
    assert (source.input.geometry.height, source.input.geometry.width) == (12, 12)
    numbers = source.logits(picture[None] for picture in PICTURES)
    np.testing.assert_allclose(probabilities(numbers, source.output), expected, atol=1e-6)
    path = tmp_path / "it.tflite"
    path.write_bytes(FORMATS["tflite"].export(source, "float32").content)
    engine = open_engine(read_content(path))
    found = np.stack([np.asarray(engine.run(picture[None])).reshape(-1) for picture in PICTURES])
    np.testing.assert_allclose(found, numbers, rtol=1e-4, atol=1e-4)


def test_a_digest_is_the_weights_and_nothing_else(tf: Any, tmp_path: Path) -> None:
    digests = set()
    for i, name in enumerate(("a .keras file", "an .h5 file", "a .keras file of logits")):
        (tmp_path / str(i)).mkdir()
        digests.add(loaded(tf, tmp_path / str(i), CASES[name])[0].weights_digest)
    assert len(digests) == 1
    frozen = loaded(tf, tmp_path, CASES["a module of logits"])[0]
    request = SourceRequest(
        str(tmp_path / "it"), pixels=InputOptions("imagenet", "tf"), labels=str(tmp_path / "labels")
    )
    again = load_source(request)
    assert frozen.weights_digest == again.weights_digest
    assert frozen.parameters == net().count_params()


def test_a_module_of_bytes_is_fed_raw_pixels(tf: Any, tmp_path: Path) -> None:
    scaled = module(lambda tf, images: tf.cast(images, tf.float32) / 127.5 - 1, dtype="uint8")
    source, _ = loaded(tf, tmp_path, Case(scaled, net), pixels=InputOptions("imagenet"))
    assert source.input.normalisation == NORMALISATIONS["raw"]
    pixels = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3)).astype(np.float32)
    expected = np.asarray(net()(pixels / 127.5 - 1))
    numbers = source.logits(picture[None] for picture in pixels)
    np.testing.assert_allclose(probabilities(numbers, source.output), expected, atol=1e-6)


def test_a_card_that_normalises_contradicts_a_module_of_bytes(tf: Any, tmp_path: Path) -> None:
    # What becomes of them inside is behind an operation that tells nothing.
    scaled = module(lambda tf, images: tf.exp(tf.cast(images, tf.float32) / -255.0), dtype="uint8")
    path = str(scaled(tf, net(), tmp_path))
    with pytest.raises(UsageError, match="takes bytes, but --card ResNet50 normalises them"):
        load_source(SourceRequest(path, card="ResNet50"))


def with_background(tf: Any, numbers: Any) -> Any:
    """Return 1001 numbers: a background before the 1000 classes of ImageNet."""
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(5, 1001)), rng.normal(size=1001)
    wide = tf.matmul(numbers, tf.constant(kernel, tf.float32))
    return tf.nn.bias_add(wide, tf.constant(bias, tf.float32))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["logits", "probabilities"])
def test_a_hub_module_goes_through_every_target(
    tf: Any, tmp_path: Path, pictures: Path, form: str
) -> None:
    finish = tf.nn.softmax if form == "probabilities" else tf.identity
    save = module(after=lambda tf, numbers: finish(with_background(tf, numbers)))
    path = save(tf, net("linear"), tmp_path)
    request = SourceRequest(str(path), pixels=InputOptions("imagenet", "tf"), labels="imagenet")
    # Fifteen pictures and random weights: what integers miss is no matter of this test.
    limits = UserLimits(agreement=0.0)
    job = Job(request, TARGETS, tmp_path / "out", pictures, Sampling(20, 15), limits=limits)
    with Progress(silent=True) as progress:
        outcomes = list(pipeline.convert(job, progress))
    assert [each.verdict.reasons for each in outcomes if not each.verdict.passed] == []
    for outcome in outcomes:
        assert outcome.checked is not None
        assert outcome.target.needs_calibration or outcome.checked.recipe.method == "stock"
        contract = read_artefact(outcome.checked.path).contract
        assert (contract.output.kind, contract.output.label_offset) == ("logits", 1)
        assert len(contract.labels) == 1000
        if outcome.target.precision == "float32":
            assert outcome.checked.parity.relative_error < 1e-4


@pytest.mark.parametrize("save", [keras_file, module()], ids=["a .keras file", "a module"])
def test_one_sigmoid_goes_through_as_two_classes(
    tf: Any, tmp_path: Path, pictures: Path, save: Callable[[Any, Any, Path], Path]
) -> None:
    keras = require("keras")
    features = body(True)
    end = keras.layers.Dense(1, "sigmoid", kernel_initializer=keras.initializers.RandomNormal(0, 2))
    model = keras.Model(features.inputs[0], end(features.outputs[0]))
    (tmp_path / "labels").write_text("cat\ndog\n")
    request = SourceRequest(
        str(save(tf, model, tmp_path)),
        pixels=InputOptions("imagenet", "tf"),
        labels=str(tmp_path / "labels"),
    )
    targets = parse_targets("tflite:float32,tflite:int8,onnx:int8")
    limits = UserLimits(agreement=0.0)
    job = Job(request, targets, tmp_path / "out", pictures, Sampling(20, 15), limits=limits)
    with Progress(silent=True) as progress:
        outcomes = list(pipeline.convert(job, progress))
    photo = sorted(pictures.iterdir())[0]
    for outcome in outcomes:
        assert outcome.verdict.passed and outcome.checked is not None
        classifier = Classifier.open(outcome.checked.path)
        cat, dog = classifier.probabilities(photo)
        spec = load_source(request).input
        expected = float(np.asarray(model(next(tensors([photo], spec))))[0, 0])
        assert dog == pytest.approx(expected, abs=LOOSE.get(outcome.target.precision, 1e-5))
        assert cat + dog == pytest.approx(1)


def text(folder: Path, name: str) -> Path:
    (folder / name).write_text("I am no model")
    return folder / name


def cut_hdf5(folder: Path) -> Path:
    path = folder / "cut.h5"
    with h5py.File(path, "w") as file:
        file["numbers"] = np.zeros(9999)
    path.write_bytes(path.read_bytes()[:3000])
    return path


def other_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "other.h5", "w") as file:
        file["numbers"] = np.zeros(9)
    return folder / "other.h5"


def weights(folder: Path) -> Path:
    net().save_weights(folder / "it.weights.h5")
    return folder / "it.weights.h5"


def other_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "zip.keras", "w") as archive:
        archive.writestr("holiday.txt", "sun")
    return folder / "zip.keras"


def a_lambda(folder: Path, name: str = "lambda.keras") -> Path:
    keras = require("keras")
    double = keras.layers.Lambda(lambda value: value * 2, name="double")
    keras.Sequential([keras.Input((8, 8, 3)), double]).save(folder / name)
    return folder / name


def with_own(folder: Path, layer: bool) -> Path:
    """Return a file with a layer or an activation that is registered where it was made only."""
    keras = require("keras")

    class Mine(keras.layers.Layer):  # type: ignore[misc,name-defined]
        pass

    def half(value: Any) -> Any:
        return value / 2

    known = keras.saving.get_custom_objects()
    keras.saving.register_keras_serializable("my")(Mine)
    keras.saving.register_keras_serializable("my")(half)
    inner = keras.Sequential([keras.layers.Conv2D(3, 1, activation=None if layer else half)])
    layers = [inner, *([Mine()] if layer else [])]
    keras.Sequential([keras.Input((8, 8, 3)), *layers]).save(folder / "own.keras")
    for name in ("my>Mine", "my>half"):
        known.pop(name)
    return folder / "own.keras"


NAMES = {"x.zip": keras_file, "x.KERAS": keras_file, "x.bin": hdf5_file, "x.keras": hdf5_file}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_file_holds_decides_however_it_is_called(tf: Any, tmp_path: Path, name: str) -> None:
    model = net()
    path = NAMES[name](tf, model, tmp_path).rename(tmp_path / name)
    np.testing.assert_allclose(load(SourceRequest(str(path))).model(PICTURES), model(PICTURES))


def test_lora_is_in_the_kernels_already(tf: Any, tmp_path: Path) -> None:
    keras, model = require("keras"), net()
    dense = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape))
    expected = np.asarray(model(PICTURES))
    found = load(SourceRequest(str(keras_file(tf, model, tmp_path)))).model
    np.testing.assert_allclose(found(PICTURES), expected, atol=1e-6)
    assert found.count_params() == net().count_params()


def test_what_keras_has_quantised_is_refused(tf: Any, tmp_path: Path) -> None:
    keras = require("keras")
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(5)]
    )
    model.layers[-1].quantize("int8")
    with pytest.raises(
        UsageError, match=r"Keras has quantised its layer .* \(int8\): give the float"
    ):
        load(SourceRequest(str(keras_file(tf, model, tmp_path))))


def test_a_module_of_one_picture_may_hold_that_number(tf: Any, tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).normal(size=(8 * 8 * 3, 5)).astype(np.float32)

    def run(picture: Any) -> Any:
        return tf.reshape(picture / 127.5 - 1, (1, -1)) @ kernel

    (tmp_path / "labels").write_text(LABELS)
    path = saved(tmp_path, run, ((1, 8, 8, 3), "float32"))
    source = load_source(
        SourceRequest(str(path), pixels=InputOptions("imagenet"), labels=str(tmp_path / "labels"))
    )
    assert source.input.normalisation == NORMALISATIONS["raw"]
    numbers = source.logits(PICTURES[i : i + 1, :8, :8] for i in range(3))
    assert numbers.shape == (3, 5)


def test_a_model_of_several_pictures_at_once(tf: Any, tmp_path: Path) -> None:
    keras = require("keras")
    image = keras.Input(batch_shape=(5, 8, 8, 3))
    feature = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(5, 3)(image))
    (tmp_path / "labels").write_text(LABELS)
    labels = str(tmp_path / "labels")
    path = keras_file(tf, keras.Model(image, feature), tmp_path)
    source = load_source(
        SourceRequest(str(path), pixels=InputOptions("imagenet", "tf"), labels=labels)
    )
    pictures = [PICTURES[i : i + 1, :8, :8] for i in range(3)]
    assert source.logits(iter(pictures)).shape == (3, 5)
    fixed = keras.Model(image, keras.ops.reshape(feature, (5, 5)))
    path = keras_file(tf, fixed, tmp_path)
    with pytest.raises(UsageError, match="takes 5 images at once, and its operations hold that"):
        load_source(SourceRequest(str(path), pixels=InputOptions("imagenet", "tf"), labels=labels))


def without_signature(folder: Path) -> Path:
    tf = require("tensorflow")
    tf.saved_model.save(tf.Module(), str(folder / "it"))
    return folder / "it"


def saved(folder: Path, function: Callable[..., Any], *specs: Any) -> Path:
    tf = require("tensorflow")
    made = tf.Module()
    made.run = tf.function(function, input_signature=[tf.TensorSpec(*spec) for spec in specs])
    tf.saved_model.save(made, str(folder / "it"), signatures=made.run)
    return folder / "it"


PICTURE = ((None, 8, 8, 3), "float32")


def damaged(folder: Path) -> Path:
    (folder / "it" / "variables").mkdir(parents=True)
    (folder / "it" / "saved_model.pb").write_bytes(b"\xff\xff no graph")
    return folder / "it"


def without_variables(folder: Path) -> Path:
    path = exported(require("tensorflow"), net(), folder)
    shutil.rmtree(path / "variables")
    return path


def halved(picture: Any) -> Any:
    tf = require("tensorflow")
    return tf.cast(tf.cast(picture, tf.float16) * 2, tf.float32)


def decoding(folder: Path) -> Path:
    def decode(data: Any) -> Any:
        tf = require("tensorflow")
        return tf.cast(tf.io.decode_jpeg(data[0], 3), tf.float32)[None]

    return saved(folder, decode, ((None,), "string"))


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "it.zip", "w") as archive:
        archive.writestr("it/saved_model.pb", b"")
    return folder / "it.zip"


def checkpoint(folder: Path) -> Path:
    tf = require("tensorflow")
    tf.train.Checkpoint(weight=tf.Variable(1.0)).write(str(folder / "cp.ckpt"))
    return folder


def beside_many(folder: Path) -> Path:
    (folder / "net.json").write_text(net().to_json())
    for name in ("a.h5", "b.h5", "c.h5", "net.weights.h5"):
        shutil.copy(weights(folder), folder / name)
    return folder / "net.json"


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing": (lambda folder: folder / "absent.keras", "absent.keras: no such file"),
    "a text called .h5": (lambda folder: text(folder, "it.h5"), "no Keras model in this file"),
    "a text called .keras": (
        lambda folder: text(folder, "it.keras"),
        "no Keras model in this file",
    ),
    "a folder of nothing": (lambda folder: folder, "no Keras model in this folder"),
    "an HDF5 file cut short": (cut_hdf5, "can't load it: "),
    "an HDF5 file of something else": (other_hdf5, "an HDF5 file without a Keras model"),
    "weights without a model": (weights, "the file as --weights; or build the model in its"),
    "a folder with a checkpoint": (checkpoint, "a checkpoint holds weights without a model: build"),
    "a checkpoint": (
        lambda folder: checkpoint(folder) / "cp.ckpt",
        "a checkpoint holds weights without a model: build",
    ),
    "an architecture beside many weights": (
        beside_many,
        "(.h5 files beside it: net.weights.h5, a.h5, b.h5, ...)",
    ),
    "a zip of something else": (other_zip, "no Keras model in this file"),
    "a SavedModel in a zip": (zipped, "a SavedModel in a zip: unpack it, and give the folder"),
    "an artefact that ends in a zip": (
        lambda folder: other_zip(folder).rename(folder / "it.onnx"),
        "no readable .onnx model but a zip archive: unpack it and give the .onnx file in it",
    ),
    "a Lambda": (
        a_lambda,
        "its Lambda layer 'double' is Python code, which kedge doesn't run; export its graph where "
        "it was trained, model.export('folder'): kedge loads graphs that only compute",
    ),
    "a Lambda in an .h5 file": (
        lambda folder: a_lambda(folder, "lambda.h5"),
        "its Lambda layer 'double' is Python code",
    ),
    "a layer of one's own": (
        lambda folder: with_own(folder, layer=True),
        "needs the class 'Mine' of its author's own",
    ),
    "an activation of one's own": (
        lambda folder: with_own(folder, layer=False),
        "needs the function 'my>half' of its author's own",
    ),
    "a SavedModel without signature": (without_signature, "the SavedModel has no signature"),
    "a SavedModel that is damaged": (damaged, "TensorFlow can't load it: "),
    "a SavedModel without its variables": (
        without_variables,
        "TensorFlow can't load it: its folder variables/ with the weights is missing",
    ),
    "two inputs": (
        lambda folder: saved(folder, lambda a, b: a + b, PICTURE, PICTURE),
        "its signature takes a, b, not one image",
    ),
    "several outputs": (
        lambda folder: saved(folder, lambda a: {"boxes": a, "scores": a * 2}, PICTURE),
        "its outputs are boxes, scores: name one with --output, such as",
    ),
    "encoded pictures": (decoding, "decodes image files itself (DecodeJpeg)"),
    "half floats": (
        lambda folder: saved(folder, lambda a: a * 2, ((None, 8, 8, 3), "float16")),
        "its graph computes in float16 (",
    ),
    "halves inside": (
        lambda folder: saved(folder, halved, PICTURE),
        "its graph computes in float16 (1 operation, PartitionedCall/mul first): give the .keras",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_model_is_refused_in_one_line(tf: Any, tmp_path: Path, name: str) -> None:
    make, reason = HOSTILE[name]
    path = make(tmp_path)
    with pytest.raises((UsageError, ArtefactError)) as caught:
        load(SourceRequest(str(path)))
    assert str(caught.value).startswith(str(path))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_kinds_are_told_by_content_not_by_name(tf: Any, tmp_path: Path) -> None:
    model = net()
    # test_frozen_pb.py, test_hub.py, test_program.py and test_onnx_import.py have these.
    others = ("frozen graph", "preset of keras_hub", "TFLite file", "ONNX file")
    kinds = [kind for kind in KINDS if kind not in others]
    for save, kind in zip((keras_file, hdf5_file, exported, architecture), kinds, strict=True):
        folder = tmp_path / kind
        folder.mkdir()
        other = folder / "called.otherwise"
        save(tf, model, folder).rename(other)
        assert kind_of(other) == kind


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file of Linux")
def test_a_file_that_the_disk_can_not_read_is_one_line() -> None:
    """Nothing is at the process's address 0, so reading fails as on a broken disk."""
    with pytest.raises(UsageError, match=r"^/proc/self/mem: input/output error$"):
        kind_of(Path("/proc/self/mem"))
