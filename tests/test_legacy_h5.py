"""What Keras 2 saved answers as it did there; the files and answers are Keras 2's own.

`make_legacy_models.py` made them. Older spellings, which no Keras at hand writes any more, are put
into the configuration by hand.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kedge_convert.load.registry import load
from kedge_convert.load.request import SourceRequest
from kedge_convert.load.weights_file import fill, load_into
from kedge_runtime.errors import UsageError

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

LEGACY = Path(__file__).parent / "models" / "legacy"
EXPECTED = dict(np.load(LEGACY / "answers.npz"))
FILES = sorted(path.stem for path in LEGACY.glob("*.h5") if path.stem in EXPECTED)


def answers(model: Any) -> Any:
    return model.predict_on_batch(EXPECTED["pictures"])


@pytest.mark.parametrize("name", FILES)
def test_it_answers_as_keras_2_did(name: str) -> None:
    found = load(SourceRequest(str(LEGACY / f"{name}.h5")))
    assert found.name == name
    np.testing.assert_allclose(answers(found.model), EXPECTED[name], atol=1e-6)
    assert EXPECTED[name].std(axis=0).max() > 0.005


def test_a_saved_model_of_keras_2_with_its_metadata() -> None:
    assert (LEGACY / "sequential" / "keras_metadata.pb").exists()
    model = load(SourceRequest(str(LEGACY / "sequential"))).model
    np.testing.assert_allclose(answers(model), EXPECTED["sequential"], atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["sequential.weights.h5", "sequential_by_order.h5", "sequential.h5"],
    ids=["by layer", "by order", "a whole model"],
)
@pytest.mark.parametrize("called", ["as it was", "x.weights.h5", "x.h5", "weights"])
def test_weights_by_whatever_name(tmp_path: Path, name: str, called: str) -> None:
    path = LEGACY / name if called == "as it was" else tmp_path / called
    if not path.exists():
        shutil.copy(LEGACY / name, path)
    model = load(SourceRequest(str(LEGACY / "sequential.h5"))).model
    model.set_weights([0 * weight for weight in model.get_weights()])
    fill(model, path)
    np.testing.assert_allclose(answers(model), EXPECTED["sequential"], atol=1e-6)


def test_weights_of_another_model_are_refused() -> None:
    model = load(SourceRequest(str(LEGACY / "functions.h5"))).model
    for name in ("sequential.weights.h5", "sequential_by_order.h5", "answers.npz"):
        with pytest.raises(UsageError, match=rf"--weights: .*{name} doesn't fit mine: "):
            load_into(model, LEGACY / name, "mine")


Config = dict[str, Any]


def edit_layer(kind: str, **changes: Any) -> Callable[[Config], None]:
    def edit(config: Config) -> None:
        for layer in config["config"]["layers"]:
            if layer["class_name"] == kind:
                layer["config"].update(changes)

    return edit


def rename_class(old: str, new: str) -> Callable[[Config], None]:
    def edit(config: Config) -> None:
        for layer in config["config"]["layers"]:
            layer["class_name"] = new if layer["class_name"] == old else layer["class_name"]

    return edit


def without_input_layer(config: Config) -> None:
    """Write a Sequential whose first layer says what it takes."""
    first, *layers = config["config"]["layers"]
    layers[0]["config"]["batch_input_shape"] = first["config"]["batch_input_shape"]
    config["config"]["layers"] = layers


def bare_list(config: Config) -> None:
    without_input_layer(config)
    config["config"] = config["config"]["layers"]


MIXED = {"class_name": "Policy", "config": {"name": "mixed_float16"}}
# Keras 1 and 2 before 2.2.3, TensorFlow 1, mixed precision, and initialisers that Keras 3 lacks.
SPELLINGS: dict[str, Callable[[Config], None]] = {
    "a list of layers": bare_list,
    "no InputLayer": without_input_layer,
    "Convolution2D": rename_class("Conv2D", "Convolution2D"),
    "BatchNormalizationV1": rename_class("BatchNormalization", "BatchNormalizationV1"),
    "an initialiser of one's own": edit_layer(
        "Conv2D", kernel_initializer={"class_name": "Mine", "config": {}}
    ),
    "a regulariser of one's own": edit_layer("Dense", kernel_regularizer="mine"),
    "a mixed policy": edit_layer("Dense", dtype=MIXED),
}


def rewritten(folder: Path, name: str, edit: Callable[[Config], None]) -> Path:
    """Return a copy of a legacy file with its configuration changed."""
    path = folder / f"{name}.h5"
    shutil.copy(LEGACY / f"{name}.h5", path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        edit(config)
        file.attrs["model_config"] = json.dumps(config)
    return path


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_older_spellings(tmp_path: Path, spelling: str) -> None:
    path = rewritten(tmp_path, "sequential", SPELLINGS[spelling])
    model = load(SourceRequest(str(path))).model
    np.testing.assert_allclose(answers(model), EXPECTED["sequential"], atol=1e-6)


def a_lambda(config: Config) -> None:
    """Make a rectifier a Lambda, as Keras 2 writes one: byte code, defaults, closure."""
    edit_layer("ReLU", name="mine", function=["4wEAAAA=", None, None])(config)
    rename_class("ReLU", "Lambda")(config)


UNREADABLE: dict[str, tuple[str, Callable[[Config], None], str]] = {
    "a custom layer": (
        "sequential",
        rename_class("ReLU", "Mine"),
        "needs the layer 'Mine' of its author's own",
    ),
    "a Lambda": ("sequential", a_lambda, "its Lambda layer 'mine' is Python code"),
    "a function that reads files": (
        "functions",
        edit_layer("TFOpLambda", function="io.read_file"),
        "calls TensorFlow's function io.read_file, which kedge doesn't run from a file",
    ),
    "a function of other arguments": (
        "functions",
        edit_layer("TFOpLambda", function="signal.fft"),
        "can't load it: fft() got an unexpected keyword argument",
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_mended_is_refused_with_the_way_round(tmp_path: Path, case: str) -> None:
    name, edit, reason = UNREADABLE[case]
    with pytest.raises(UsageError) as caught:
        load(SourceRequest(str(rewritten(tmp_path, name, edit))))
    assert reason in str(caught.value)
    assert "model.export('folder'): kedge loads graphs that only compute" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_clustering_wrappers_are_refused_with_what_takes_them_off(tmp_path: Path) -> None:
    path = rewritten(tmp_path, "sequential", rename_class("ReLU", "ClusterWeights"))
    with pytest.raises(UsageError, match=r"wrappers of tfmot \(ClusterWeights\).*strip_clustering"):
        load(SourceRequest(str(path)))
