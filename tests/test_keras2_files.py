"""Files that TensorFlow 2.12 and 2.15 saved answer as they did there.

`make_keras2_files.py` made them; the answers are TensorFlow's own.
"""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_convert.load import keras2 as judge
from kedge_convert.load import rebuild, tfmot
from kedge_convert.load.registry import load
from kedge_convert.load.request import LoadedModel, SourceRequest
from kedge_convert.source import load_source
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.errors import UsageError, one_line
from kedge_runtime.image.input_options import InputOptions
from kedge_runtime.output import quiet

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

FOLDER = Path(__file__).parent / "models" / "keras2"
EXPECTED = {v: dict(np.load(FOLDER / f"answers-{v}.npz")) for v in ("2.12", "2.15")}
FILES = sorted(path.name for path in FOLDER.glob("*-2.??.*") if path.suffixes[-1] != ".npz")
WHOLE = [name for name in FILES if not name.endswith((".json", ".weights.h5"))]
AUGMENTED = "left out, as they act in training only: RandomFlip, RandomRotation"


def expected(name: str) -> Floats:
    kind, version = name.split("-")
    return np.asarray(EXPECTED[version[:4]][kind])


def answers(found: LoadedModel, name: str) -> Floats:
    version = name.split("-")[1][:4]
    return np.asarray(found.model(EXPECTED[version]["images"], training=False))


@pytest.mark.parametrize("name", WHOLE)
def test_it_answers_as_tensorflow_did(name: str) -> None:
    found = load(SourceRequest(str(FOLDER / name)))
    np.testing.assert_allclose(answers(found, name), expected(name), rtol=0, atol=1e-6)
    assert np.ptp(expected(name), axis=0).max() > 1e-3
    kinds = [type(each).__name__ for each in found.model.layers]
    assert ("Frozen" in kinds) == name.startswith("unlike")
    assert not {"Dropout", "Functional", "Sequential"} & set(kinds)


def test_what_is_left_out_or_goes_on_as_a_graph_is_said() -> None:
    notes = {kind: load(SourceRequest(str(FOLDER / f"{kind}-2.15.h5"))).notes for kind in NOTES}
    assert notes == NOTES


NOTES = {
    "pruned": ("pruning wrappers stripped",),
    "teachable": (),
    "transfer": (AUGMENTED,),
    "unlike": (
        "loaded as a graph, whose int8 weights are stock ones: Keras 3 can't hold its layers (the "
        "function nn.local_response_normalization has no equal in Keras 3)",
    ),
}


def test_a_layer_that_is_called_twice_stays_one() -> None:
    model = load(SourceRequest(str(FOLDER / "twice-2.15.h5"))).model
    dense = [each for each in model.layers if type(each).__name__ == "Dense"]
    assert sorted(len(each._inbound_nodes) for each in dense) == [1, 2]
    assert all("/" not in each.name for each in model.layers)


def test_a_layer_in_a_wrapper_is_rebuilt_with_it(tmp_path: Path) -> None:
    """Bidirectional, TimeDistributed and RNN hold a layer, which Keras 3 wants as a layer."""
    layers = (old := require("tf_keras")).layers
    model = old.Sequential(
        [
            old.Input((8, 8, 3)),
            layers.TimeDistributed(layers.Conv1D(4, 3, activation="relu")),
            layers.TimeDistributed(layers.Flatten()),
            layers.Bidirectional(layers.GRU(5, return_sequences=True)),
            layers.Bidirectional(layers.LSTM(5, return_sequences=True), merge_mode="sum"),
            layers.RNN(layers.GRUCell(6)),
            layers.Dense(3),
        ]
    )
    images = np.random.default_rng(4).random((4, 8, 8, 3), np.float32)
    with quiet():
        model.save(tmp_path / "wrapped.h5")
        theirs = np.asarray(model(images, training=False))
    found = load(SourceRequest(str(tmp_path / "wrapped.h5")))
    assert found.notes == ()
    np.testing.assert_allclose(np.asarray(found.model(images)), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("version", EXPECTED)
def test_an_architecture_and_its_weights(tmp_path: Path, version: str) -> None:
    name = f"teachable-{version}"
    weights = FOLDER / f"{name}.weights.h5"
    found = load(SourceRequest(str(FOLDER / f"{name}.json"), weights=str(weights)))
    np.testing.assert_allclose(answers(found, name), expected(name), atol=1e-6)
    shutil.copy(FOLDER / f"{name}.json", tmp_path / "model.json")
    shutil.copy(weights, tmp_path / "any.h5")
    (tmp_path / "package.json").write_text("{}")
    for path in (tmp_path, tmp_path / "model.json"):
        beside = load(SourceRequest(str(path)))
        np.testing.assert_allclose(answers(beside, name), expected(name), atol=1e-6)


def small(outputs: str = "softmax") -> Any:
    layers = require("keras").layers
    return require("keras").Sequential(
        [
            require("keras").Input((8, 8, 3)),
            layers.Conv2D(4, 3),
            layers.Flatten(),
            layers.Dense(3, activation=outputs),
        ]
    )


def test_an_architecture_of_keras_3(tmp_path: Path) -> None:
    model = small()
    (tmp_path / "model.json").write_text(model.to_json())
    model.save_weights(tmp_path / "it.weights.h5")
    images = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
    found = load(SourceRequest(str(tmp_path)))
    np.testing.assert_allclose(found.model(images), model(images), atol=1e-6)


def test_an_architecture_asks_for_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(small().to_json())
    with pytest.raises(UsageError, match=r"without weights: give --weights FILE .*: none\)"):
        load(SourceRequest(str(path)))
    for name in ("a.weights.h5", "b.weights.h5"):
        small().save_weights(tmp_path / name)
    with pytest.raises(UsageError, match=r"beside it: a\.weights\.h5, b\.weights\.h5\)"):
        load(SourceRequest(str(path)))
    with pytest.raises(UsageError, match=r"absent\.h5: no such file"):
        load(SourceRequest(str(path), weights=str(tmp_path / "absent.h5")))
    small("linear").save_weights(tmp_path / "b.weights.h5")
    (tmp_path / "labels").write_text("a\nb\nc\n")
    request = SourceRequest(
        str(path),
        weights=str(tmp_path / "b.weights.h5"),
        labels=str(tmp_path / "labels"),
        pixels=InputOptions("imagenet", "tf"),
    )
    assert load_source(request).head == "softmax"


def test_an_architecture_in_yaml_is_refused_with_what_helps(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    path = tmp_path / "model.yaml"
    saved = json.loads((FOLDER / "teachable-2.12.json").read_text())
    path.write_text(yaml.safe_dump(saved))
    shutil.copy(FOLDER / "teachable-2.12.weights.h5", tmp_path)
    with pytest.raises(UsageError, match="an architecture in YAML") as caught:
        load(SourceRequest(str(path)))
    (code,) = (part for part in str(caught.value).split(": ") if part.startswith("write it"))
    program = code.removeprefix("write it as JSON, ").removesuffix(", and give that file")
    command = [sys.executable, "-c", f"import json, yaml; {program}"]
    subprocess.run(command, cwd=tmp_path, check=True)
    found = load(SourceRequest(str(tmp_path / "model.json")))
    np.testing.assert_allclose(
        answers(found, "teachable-2.12"), expected("teachable-2.12"), atol=1e-6
    )


def rewritten(folder: Path, edit: Callable[[Any], None]) -> Path:
    """Return a copy of an archive of TensorFlow 2.15 with its configuration changed."""
    path = folder / "it.keras"
    with zipfile.ZipFile(FOLDER / "pruned-2.15.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                edit(config["config"]["layers"][1])
                content = json.dumps(config).encode()
            new.writestr(name, content)
    return path


def of_another_module(layer: dict[str, Any]) -> None:
    layer.update(module="subprocess", class_name="Popen", registered_name="Popen")


def of_its_author(layer: dict[str, Any]) -> None:
    layer.update(module=None, class_name="Mine", registered_name="my>Mine")


def a_lambda(layer: dict[str, Any]) -> None:
    function = {"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}
    layer.update(class_name="Lambda", config={"name": "mine", "function": function})


REFUSED: dict[str, tuple[Callable[[Any], None], str]] = {
    "a class of another module": (of_another_module, "needs the class 'Popen' of its author's own"),
    "a class of its author's": (of_its_author, "needs the class 'Mine' of its author's own"),
    "a Lambda": (a_lambda, "its Lambda layer 'mine' is Python code, which kedge doesn't run"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_code_in_an_archive_is_refused(tmp_path: Path, case: str) -> None:
    edit, reason = REFUSED[case]
    path = rewritten(tmp_path, edit)
    with pytest.raises(UsageError) as caught:
        load(SourceRequest(str(path)))
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def original(name: str) -> Any:
    models = require("tf_keras").models
    with quiet():
        return models.load_model(FOLDER / name, custom_objects=tfmot.stand_ins(), compile=False)


@pytest.mark.parametrize("layer", ["conv2d", "dense"])
def test_the_judge_sees_a_weight_that_is_off(layer: str) -> None:
    keras2 = original("teachable-2.15.h5")
    rebuilt = rebuild.rebuilt(keras2)
    judge.check(keras2, rebuilt)
    kernel = next(each for each in rebuilt.model.layers if each.name.startswith(layer)).kernel
    kernel.assign(kernel * 1.001)
    with pytest.raises(ValueError, match="its answers differ by"):
        judge.check(keras2, rebuilt)


def test_the_judge_sees_behind_a_saturated_softmax() -> None:
    keras2 = original("teachable-2.15.h5")
    kernel = keras2.layers[-1].layers[-1].kernel
    kernel.assign(kernel * 1e4)
    rebuilt = rebuild.rebuilt(keras2)
    last = rebuilt.model.layers[-1]
    last.kernel.assign(last.kernel * 1.01)
    with pytest.raises(ValueError, match="its answers differ by"):
        judge.check(keras2, rebuilt)
    assert last.activation is require("keras").activations.softmax


def test_colours_and_advice_stay_out_of_a_line() -> None:
    red = ValueError("\x1b[1mCannot load it\x1b[0m,\n\x1b[31;1mas it is damaged\x1b[0m")
    assert one_line(red) == "Cannot load it, as it is damaged"
