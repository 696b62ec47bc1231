"""The paths that people come by, from raw folders of images to a checked file: the tutorials of
image classification and of transfer learning, and Teachable Machine.

The judge is the model in its own framework, on pixels that its own pipeline loads.
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from conftest import Run
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.classify.classifier import Classifier

pytestmark = pytest.mark.slow

CLASSES = ("circle", "cross", "square")
SIDE = 64
# Largest difference of a probability of the float32 file on image files, decoded and resized by
# kedge instead of the pipeline: bytes are rounded once.
NEAR = 0.02


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tf2onnx", reason="the converter needs keras-kedge[convert]")
    return require("keras")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return raw images in one folder a class, of many sizes, some turned by EXIF."""
    root, rng = tmp_path_factory.mktemp("raw"), np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir()
        for i in range(40):
            exif = Image.Exif()
            exif[0x0112] = 6 if i % 10 == 3 else 1
            path = root / name / f"{i:02}.{'png' if i % 2 else 'jpg'}"
            drawn(name, rng).save(path, exif=exif)
    return root


def drawn(name: str, rng: np.random.Generator) -> Image.Image:
    """Return a shape in a colour of its own on coloured noise."""
    width, height = (int(side) for side in rng.integers(60, 200, 2))
    noise = rng.integers(0, 120, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    draw, colour = ImageDraw.Draw(image), tuple(int(c) for c in rng.integers(140, 255, 3))
    box = [width * 0.2, height * 0.2, width * 0.8, height * 0.8]
    if name == "circle":
        draw.ellipse(box, outline=colour, width=6)
    elif name == "square":
        draw.rectangle(box, fill=colour)
    else:
        draw.line(box, fill=colour, width=8)
        draw.line([box[2], box[1], box[0], box[3]], fill=colour, width=8)
    return image


def dataset(keras: Any, folder: Path, **options: Any) -> Any:
    return keras.utils.image_dataset_from_directory(
        folder, image_size=(SIDE, SIDE), batch_size=30, seed=1, verbose=False, **options
    )


def fitted(keras: Any, model: Any, data: Any, loss: Any, epochs: int = 6) -> Any:
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(data, epochs=epochs, shuffle=False, verbose=0)
    return model


@pytest.fixture(scope="module")
def trained(keras: Any, shared: Path) -> dict[str, list[Any]]:
    """Return the downloaded weights of MobileNet 0.25, by layer."""
    model = keras.models.load_model(shared / "data/models/mobilenet_0.25_224.keras")
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def trunk(keras: Any, trained: dict[str, list[Any]]) -> Any:
    """Return MobileNet 0.25 without its head, of Keras 3 or tf_keras, frozen as tutorials do."""
    base = keras.applications.MobileNet(
        input_shape=(SIDE, SIDE, 3), include_top=False, weights=None, alpha=0.25
    )
    for layer in base.layers:
        if layer.weights:
            layer.set_weights(trained[layer.name])
    base.trainable = False
    return base


def augmentation(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])


def image_classification(keras: Any, folder: Path, _: dict[str, list[Any]]) -> Any:
    """As the official image-classification tutorial: augmentation, Rescaling, logits."""
    layers = keras.layers
    blocks = [
        layer
        for width in (8, 16)
        for layer in (
            layers.Conv2D(width, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
        )
    ]
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            augmentation(keras),
            layers.Rescaling(1.0 / 255),
            *blocks,
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(len(CLASSES), name="outputs"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return fitted(keras, model, dataset(keras, folder), loss)


def transfer_learning(keras: Any, folder: Path, trained: dict[str, list[Any]]) -> Any:
    """As the official transfer-learning tutorial: preprocess_input inside, one sigmoid."""
    base = trunk(keras, trained)
    two = dataset(keras, folder, class_names=["circle", "square"], label_mode="binary")
    inputs = keras.Input((SIDE, SIDE, 3))
    value = augmentation(keras)(inputs)
    value = keras.applications.mobilenet.preprocess_input(value)
    value = keras.layers.GlobalAveragePooling2D()(base(value, training=False))
    outputs = keras.layers.Dense(1, activation="sigmoid")(keras.layers.Dropout(0.2)(value))
    return fitted(keras, keras.Model(inputs, outputs), two, "binary_crossentropy")


def by_tensorflow(keras: Any, model: Any, path: Path) -> Floats:
    """Return the model's numbers for an image as image_dataset_from_directory loads it."""
    tf = require("tensorflow")
    image = tf.io.decode_image(tf.io.read_file(str(path)), channels=3, expand_animations=False)
    pixels = tf.image.resize(image, (SIDE, SIDE))[None]
    return np.asarray(model(pixels, training=False)[0], np.float32)


def softmax(numbers: Floats) -> Floats:
    powers = np.exp(numbers - numbers.max())
    return np.asarray(powers / powers.sum())


def two_classes(number: Floats) -> Floats:
    return np.array([1 - number[0], number[0]])


Train = Callable[[Any, Path, dict[str, list[Any]]], Any]
TUTORIALS: dict[str, tuple[Train, Callable[[Floats], Floats], str]] = {
    "image classification": (image_classification, softmax, "keras"),
    "transfer learning": (transfer_learning, two_classes, "keras"),
    "image classification, exported": (image_classification, softmax, "saved"),
    "transfer learning, .h5": (transfer_learning, two_classes, "h5"),
}


@pytest.mark.parametrize("name", TUTORIALS)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_tutorial_ends_in_files_that_answer_as_its_model(
    keras: Any,
    trained: dict[str, list[Any]],
    folder: Path,
    tmp_path: Path,
    kedge: Run,
    name: str,
) -> None:
    train, answers, container = TUTORIALS[name]
    keras.utils.set_random_seed(1)
    model = train(keras, folder, trained)
    saved = tmp_path / ("mine" if container == "saved" else f"mine.{container}")
    (model.export if container == "saved" else model.save)(str(saved))
    told = ["--preprocess", "image_dataset", "--calibrate", folder, "--out", tmp_path / "out"]
    if model.output_shape[-1] == 1:
        (tmp_path / "labels.txt").write_text("circle\nsquare\n")
        told += ["--labels", tmp_path / "labels.txt"]
    # The same net in another container: its integers are those of the first.
    targets = "tflite:float32" if container == "h5" else "tflite:float32,tflite:int8,onnx:float32"
    code, out, err = kedge("convert", saved, "--to", targets, *told)
    assert code == 0, out + err
    assert "tf_bilinear, stretch, no EXIF, 0 to 255 (--preprocess image_dataset" in err
    held_by_its_model(keras, model, answers, folder, tmp_path / "out")


def held_by_its_model(
    keras: Any, model: Any, answers: Callable[[Floats], Floats], folder: Path, out: Path
) -> None:
    """Hold the artefacts against the model on own pixels: raw image files in, probabilities out."""
    images = [path for name in CLASSES[::2] for path in sorted((folder / name).iterdir())[:12]]
    wanted = np.stack([answers(by_tensorflow(keras, model, path)) for path in images])
    for artefact in sorted(out.iterdir()):
        classifier = Classifier.open(artefact)
        given = np.stack([classifier.probabilities(path) for path in images])
        if "float32" in artefact.name:
            lossless = [i for i, path in enumerate(images) if path.suffix == ".png"]
            assert np.abs(given - wanted)[lossless].max() < NEAR, artefact.name
        assert (given.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.9, artefact.name


def teachable_machine(keras: Any, base: Any) -> Any:
    """Return a model of the shape of Teachable Machine's keras_model.h5, its head untrained."""
    features = keras.Sequential([base, keras.layers.GlobalAveragePooling2D()])
    head = keras.Sequential(
        [
            keras.Input(base.output_shape[-1:]),
            keras.layers.Dense(20, activation="relu"),
            keras.layers.Dense(len(CLASSES), activation="softmax", use_bias=False),
        ]
    )
    return keras.Sequential([features, head])


def by_teachable_machine(path: Path) -> Floats:
    """Return an image as the Python snippet of Teachable Machine's export loads it."""
    with Image.open(path) as opened:
        image = ImageOps.fit(opened.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
    return (np.asarray(image, np.float32) / 127.5 - 1)[None]


def test_teachable_machine_from_its_keras_file(
    trained: dict[str, list[Any]], folder: Path, tmp_path: Path, kedge: Run
) -> None:
    """Its file is of Keras 2, nested three deep, made and judged by tf_keras."""
    old = pytest.importorskip("tf_keras", reason="the converter needs keras-kedge[convert]")
    old.utils.set_random_seed(1)
    model = teachable_machine(old, trunk(old, trained))
    images = sorted(folder.rglob("*.*"))
    pixels = np.concatenate([by_teachable_machine(path) for path in images])
    true = np.array([CLASSES.index(path.parent.name) for path in images])
    model.compile(old.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    model.fit(pixels, true, epochs=8, verbose=0)
    with pytest.warns(UserWarning, match="saving your model as an HDF5 file"):
        model.save(tmp_path / "keras_model.h5")
    numbered = "".join(f"{i} {name}\n" for i, name in enumerate(CLASSES))
    (tmp_path / "labels.txt").write_text(numbered)
    told = ["--preprocess", "teachable_machine", "--labels", tmp_path / "labels.txt"]
    targets = "tflite:float32,tflite:int8,onnx:float32"
    out = ["--calibrate", folder, "--out", tmp_path / "out"]
    code, said, err = kedge("convert", tmp_path / "keras_model.h5", "--to", targets, *told, *out)
    assert code == 0, said + err
    wanted = np.asarray(model(pixels[::9], training=False))
    for artefact in ("float32.tflite", "float32.onnx"):
        classifier = Classifier.open(tmp_path / "out" / f"keras_model.{artefact}")
        assert [label.name for label in classifier.contract.labels] == list(CLASSES)
        given = np.stack([classifier.probabilities(path) for path in images[::9]])
        # Pillow's pixels are kedge's, byte for byte.
        np.testing.assert_allclose(given, wanted, atol=1e-3)


def test_teachable_machine_from_its_zip(
    trained: dict[str, list[Any]], folder: Path, tmp_path: Path, kedge: Run
) -> None:
    """Its TensorFlow Lite export is a zip of a model and numbered labels."""
    tf, old = require("tensorflow"), pytest.importorskip("tf_keras")
    old.utils.set_random_seed(2)
    model = teachable_machine(old, trunk(old, trained))

    @tf.function(input_signature=[tf.TensorSpec((1, SIDE, SIDE, 3))])  # type: ignore[untyped-decorator]
    def call(image: Any) -> Any:
        return model(image, training=False)

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [call.get_concrete_function()], model
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("model_unquant.tflite", converter.convert())
        archive.writestr("labels.txt", "".join(f"{i} {n}\n" for i, n in enumerate(CLASSES)))
    (tmp_path / "converted_tflite.zip").write_bytes(packed.getvalue())
    image = sorted(folder.rglob("*.png"))[0]
    code, out, err = kedge("classify", tmp_path / "converted_tflite.zip", image, "--json")
    assert code == 0, err
    best = np.asarray(model(by_teachable_machine(image), training=False))[0]
    assert f'"{CLASSES[int(best.argmax())]}"' in out
