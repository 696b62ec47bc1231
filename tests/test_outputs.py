"""One of several outputs or signatures: chosen by name, and listed where none is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_convert.drift import hooks
from kedge_convert.job import Job
from kedge_convert.load.registry import load
from kedge_convert.load.request import SourceRequest
from kedge_convert.pipeline import convert
from kedge_convert.sampling import Sampling
from kedge_convert.targets import parse_targets
from kedge_convert.toolkit import require
from kedge_convert.verdict import UserLimits
from kedge_convert.worker.progress import Progress
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.drift.recording import Against
from kedge_runtime.errors import UsageError
from kedge_runtime.image.input_options import InputOptions
from kedge_runtime.output import quiet

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

PICTURES = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 3)).astype(np.float32)


def heads(keras: Any) -> tuple[Any, Any, Any]:
    """Return an input, and two outputs of it."""
    image = keras.Input((8, 8, 3))
    value = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    species = keras.layers.Dense(5, activation="softmax", name="species")(value)
    return image, species, keras.layers.Dense(2, activation="softmax", name="sex")(value)


def listed(keras: Any) -> Any:
    image, species, sex = heads(keras)
    return keras.Model(image, [species, sex])


def keyed(keras: Any) -> Any:
    image, species, sex = heads(keras)
    return keras.Model(image, {"what": species, "which": sex})


def nested(keras: Any) -> Any:
    image = keras.Input((8, 8, 3))
    return keras.Model(image, listed(keras)(image))


CASES: dict[str, tuple[Callable[[Any], Any], tuple[str, str]]] = {
    "a list": (listed, ("species", "sex")),
    "a dictionary": (keyed, ("what", "which")),
    "a nested model": (nested, ("species", "sex")),
}


@pytest.mark.parametrize("name", CASES)
def test_an_output_is_chosen_by_name_or_index(tmp_path: Path, name: str) -> None:
    keras = require("keras")
    make, (first, second) = CASES[name]
    model = make(keras)
    model.save(tmp_path / "it.keras")
    path = str(tmp_path / "it.keras")
    expected = keras.tree.flatten(model(PICTURES))
    for asked, index in ((first, 0), (second, 1), ("0", 0), ("1", 1)):
        found = load(SourceRequest(path, output=asked)).model
        np.testing.assert_allclose(found(PICTURES), expected[index], atol=1e-6)
    assert found.count_params() < model.count_params()
    listing = f"its outputs are {first}, {second}: name one with --output, such as --output {first}"
    with pytest.raises(UsageError, match=listing):
        load(SourceRequest(path))
    with pytest.raises(UsageError, match=f"--output it: .* its outputs are {first}, {second}$"):
        load(SourceRequest(path, output="it"))


def test_an_only_output_is_not_chosen(tmp_path: Path) -> None:
    keras = require("keras")
    image, species, _ = heads(keras)
    keras.Model(image, species).save(tmp_path / "it.keras")
    with pytest.raises(UsageError, match="--output species: the model has one output only"):
        load(SourceRequest(str(tmp_path / "it.keras"), output="species"))
    with pytest.raises(UsageError, match=r"--signature: \S+ is no SavedModel, and has none"):
        load(SourceRequest(str(tmp_path / "it.keras"), signature="serve"))


def test_a_signature_and_its_output_are_chosen_by_name(tmp_path: Path) -> None:
    keras, tf = require("keras"), require("tensorflow")
    model = keyed(keras)

    class Module(tf.Module):  # type: ignore[misc,name-defined]
        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3))])  # type: ignore[untyped-decorator]
        def both(self, images: Any) -> Any:
            return model(images)

        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3))])  # type: ignore[untyped-decorator]
        def one(self, images: Any) -> Any:
            return {"answer": model(images)["what"] * 2.0}

    made = Module()
    made.kept = model.variables
    path = str(tmp_path / "it")
    with quiet():
        tf.saved_model.save(made, path, signatures={"both": made.both, "one": made.one})
    expected = model(PICTURES)
    found = load(SourceRequest(path, signature="both", output="which")).model
    np.testing.assert_allclose(found(PICTURES), expected["which"], atol=1e-6)
    found = load(SourceRequest(path, signature="one")).model
    np.testing.assert_allclose(found(PICTURES), 2 * expected["what"], atol=1e-6)
    with pytest.raises(UsageError, match="its signatures are both, one: name one with --signature"):
        load(SourceRequest(path))
    with pytest.raises(UsageError, match="its outputs are what, which: name one with --output"):
        load(SourceRequest(path, signature="both"))
    with pytest.raises(UsageError, match=r"--signature two: .*its signatures are both, one$"):
        load(SourceRequest(path, signature="two"))


def test_drift_asks_the_output_that_was_converted(tmp_path: Path, pictures: Path) -> None:
    """The artefact knows which one: `kedge drift` and `kedge build` asked for it in vain."""
    listed(require("keras")).save(path := tmp_path / "it.keras")
    (tmp_path / "labels").write_text("one\ntwo\n")
    words = InputOptions("load_img", "unit")
    request = SourceRequest(str(path), pixels=words, labels=str(tmp_path / "labels"), output="sex")
    target = parse_targets("tflite:float32")
    job = Job(
        request,
        target,
        tmp_path / "out",
        pictures,
        Sampling(4, 4),
        limits=UserLimits(agreement=0.0),
    )
    with Progress(silent=True) as progress:
        (outcome,) = convert(job, progress)
    assert outcome.checked is not None
    artefact = read_artefact(outcome.checked.path)
    assert artefact.contract.provenance.output == "sex"
    source = hooks.load_float_model(Against(str(path), "imagenet", artefact))
    assert source.model.outputs[0].shape == (None, 2)
