"""Random layers that an export left on are taken out; Keras without training is the judge."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_convert.load.graph_augmentation import RANDOM
from kedge_convert.load.registry import load
from kedge_convert.load.request import SourceRequest
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.errors import UsageError
from kedge_runtime.output import quiet

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

PICTURES = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype(np.float32)
Layers = list[Any]


def tutorial(layers: Any) -> Layers:
    """A Sequential model of augmentation, as the tutorials build it, and what stays, inside."""
    inside = [
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(0.1),
        layers.RandomZoom(0.1),
        layers.Rescaling(0.9),
    ]
    return [require("keras").Sequential(inside, name="data_augmentation")]


def colours(layers: Any) -> Layers:
    return [
        layers.RandomContrast(0.2),
        layers.RandomTranslation(0.1, 0.1),
        layers.RandomBrightness(0.2),
        layers.RandomGaussianBlur(),
        layers.RandomHue(0.2),
    ]


def policies(layers: Any) -> Layers:
    return [layers.RandAugment(), layers.RandomErasing(), layers.RandomSharpness(0.3)]


def noise(layers: Any) -> Layers:
    """What is on in training only, left on by the user."""
    return [layers.Dropout(0.3), layers.GaussianNoise(0.1), layers.SpatialDropout2D(0.2)]


def network(make: Callable[[Any], Layers], *, training: bool | None = None) -> Any:
    keras = require("keras")
    keras.utils.set_random_seed(0)
    layers, image = keras.layers, keras.Input((16, 16, 3))
    value, told = image, {} if training is None else {"training": training}
    for layer in make(layers):
        value = layer(value, **told)
    value = layers.Conv2D(4, 3)(layers.Rescaling(1 / 127.5, offset=-1)(value))
    value = layers.GlobalAveragePooling2D()(value)
    return keras.Model(image, layers.Dense(5, activation="softmax")(value))


def exported(model: Any, folder: Path) -> SourceRequest:
    with quiet():
        model.export(folder / "it", verbose=False)
    return SourceRequest(str(folder / "it"))


def without_training(model: Any) -> Floats:
    """Return the answers of a model whose random layers are left out, as Keras does by itself."""
    value: Any = PICTURES
    for layer in model.layers[1:]:
        value = layer(value, training=False)
    return np.asarray(value)


@pytest.mark.parametrize("make", [tutorial, colours, policies])
def test_augmentation_is_taken_out_of_an_export(
    tmp_path: Path, make: Callable[[Any], Layers]
) -> None:
    model = network(make)
    found = load(exported(model, tmp_path))
    expected = np.asarray(model(PICTURES, training=False))
    np.testing.assert_allclose(found.model(PICTURES), expected, atol=1e-5)
    np.testing.assert_array_equal(found.model(PICTURES), found.model(PICTURES))
    assert np.ptp(expected, axis=0).max() > 1e-3
    (layer,) = [each for each in found.model.layers if hasattr(each, "graph")]
    assert not [node.op for node in layer.graph.definition.node if RANDOM.search(node.op)]
    assert found.notes[0].startswith("random layers that the export left on, taken out: rand")


def test_noise_and_dropout_that_were_left_on_are_taken_out(tmp_path: Path) -> None:
    model = network(noise, training=True)
    found = load(exported(model, tmp_path))
    np.testing.assert_allclose(found.model(PICTURES), without_training(model), atol=1e-5)
    assert "taken out: dropout" in found.notes[0]


def module(call: Callable[[Any], Any], kept: Any, folder: Path) -> SourceRequest:
    """Save a function of pictures as a SavedModel of one signature."""
    tf = require("tensorflow")

    class Module(tf.Module):  # type: ignore[misc,name-defined]
        @tf.function(input_signature=[tf.TensorSpec((None, 16, 16, 3))])  # type: ignore[untyped-decorator]
        def run(self, images: Any) -> Any:
            return {"answer": call(images)}

    made = Module()
    made.kept = kept
    tf.saved_model.save(made, str(folder), signatures=made.run)
    return SourceRequest(str(folder))


def test_a_generator_of_tensorflow_is_taken_out_too(tmp_path: Path) -> None:
    tf, model = require("tensorflow"), network(lambda _: [])
    generator = tf.random.Generator.from_seed(1)

    def call(images: Any) -> Any:
        with tf.name_scope("shaken"):
            shaken = images + generator.normal((16, 16, 3), stddev=50.0)
        return model(shaken, training=False)

    found = load(module(call, (model.variables, generator), tmp_path / "it"))
    np.testing.assert_allclose(found.model(PICTURES), model(PICTURES), atol=1e-5)
    assert found.notes[0].endswith("taken out: shaken")


def test_what_is_drawn_beside_weights_is_refused_and_the_remedy_helps(tmp_path: Path) -> None:
    tf, keras = require("tensorflow"), require("keras")

    class Shaken(keras.layers.Layer):  # type: ignore[misc,name-defined]
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(3, 3), name="kernel")

        def call(self, value: Any, training: bool = True) -> Any:
            value = tf.matmul(value, self.kernel)
            return value + tf.random.normal((16, 16, 3)) if training else value

    model = network(lambda _: [Shaken(name="shaken")])
    reason = r"it: its graph draws random numbers \(RandomStandardNormal \S*shaken\S*\) outside a"
    with pytest.raises(UsageError, match=reason):
        load(exported(model, tmp_path))
    request = module(lambda x: model(x, training=False), model.variables, tmp_path / "remedy")
    expected = np.asarray(model(PICTURES, training=False))
    np.testing.assert_allclose(load(request).model(PICTURES), expected, atol=1e-5)


def crop(layers: Any) -> Layers:
    return [layers.RandomFlip(), layers.RandomCrop(12, 10)]


def test_a_random_crop_hands_on_the_whole_image_as_keras_3_does(tmp_path: Path) -> None:
    model = network(crop)
    found = load(exported(model, tmp_path))
    expected = np.asarray(model(PICTURES, training=False))
    np.testing.assert_allclose(found.model(PICTURES), expected, atol=1e-5)
    assert re.search(r"taken out: random_flip\w*, random_crop\w*$", found.notes[0])


def flattened(crop: str) -> Any:
    """Return a model whose layers take the size that a crop leaves, and no other."""
    keras = require("keras")
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    value = keras.layers.Flatten()(getattr(keras.layers, crop)(8, 8)(image))
    return keras.Model(image, keras.layers.Dense(5, activation="softmax")(value))


def test_a_random_crop_that_later_layers_need_is_refused_and_the_remedy_helps(
    tmp_path: Path,
) -> None:
    reason = r"draws random numbers .*random_crop.* another size .* with CenterCrop in its place"
    with pytest.raises(UsageError, match=reason):
        load(exported(flattened("RandomCrop"), tmp_path))
    model = flattened("CenterCrop")
    found = load(exported(model, tmp_path / "remedy"))
    np.testing.assert_allclose(found.model(PICTURES), model(PICTURES), atol=1e-5)


@pytest.mark.parametrize("side", [12, 20], ids=["smaller", "larger"])
def test_a_random_crop_of_keras_2_resizes_out_of_training(tmp_path: Path, side: int) -> None:
    """The graph asks for `training` and the size; what it doesn't take is no part of the model."""
    keras = require("tf_keras")
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    value = keras.layers.RandomCrop(side, side - 2)(keras.layers.RandomFlip()(image))
    value = keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(value))
    model = keras.Model(image, keras.layers.Dense(5, activation="softmax")(value))
    with quiet():
        model.save(tmp_path / "it", save_format="tf")
    found = load(SourceRequest(str(tmp_path / "it")))
    expected = np.asarray(model(PICTURES, training=False))
    np.testing.assert_allclose(found.model(PICTURES), expected, atol=1e-5)
    (layer,) = [each for each in found.model.layers if hasattr(each, "graph")]
    kinds = {node.op for node in layer.graph.definition.node}
    assert not [kind for kind in kinds if RANDOM.search(kind) or kind in ("Switch", "Merge", "If")]


def test_norms_in_training_are_refused_and_the_remedy_helps(tmp_path: Path) -> None:
    model = network(lambda layers: [layers.BatchNormalization()])
    request = module(lambda x: model(x, training=True), model.variables, tmp_path / "it")
    with pytest.raises(UsageError, match=r"writes variables with every image .*training=False"):
        load(request)
    request = module(lambda x: model(x, training=False), model.variables, tmp_path / "remedy")
    expected = np.asarray(model(PICTURES, training=False))
    np.testing.assert_allclose(load(request).model(PICTURES), expected, atol=1e-5)


def test_the_documented_export_is_the_model_as_it_is_used(tmp_path: Path) -> None:
    """docs/sources.md: for norms beside random layers, whose own export may be of training."""
    keras, tf = require("keras"), require("tensorflow")
    model = network(lambda layers: [layers.RandomFlip(), layers.BatchNormalization()])
    page = (Path(__file__).parents[1] / "docs" / "sources.md").read_text(encoding="utf-8")
    (code,) = (block for block in page.split("```") if "ExportArchive" in block)
    code = code.removeprefix("python\n").replace('"flowers"', repr(str(tmp_path / "it")))
    with quiet():
        exec(code, {"keras": keras, "tf": tf, "model": model})
    expected = np.asarray(model(PICTURES, training=False))
    found = load(SourceRequest(str(tmp_path / "it")))
    np.testing.assert_allclose(found.model(PICTURES), expected, atol=1e-5)
