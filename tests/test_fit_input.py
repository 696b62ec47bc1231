"""`kedge fit-input` on small nets trained here, and the stop of `kedge convert`."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from kedge_convert.fitting.subject import (
    better_input,
    norms_of,
    outputs,
    true_outputs,
)
from kedge_convert.images import tensors
from kedge_convert.load.request import SourceRequest
from kedge_convert.source import load_source
from kedge_convert.toolkit import require
from kedge_runtime.artefact.contract import Output
from kedge_runtime.fitting import candidates, scores
from kedge_runtime.fitting.candidates import zoomed
from kedge_runtime.image.input_options import InputOptions
from kedge_runtime.image.pipelines import NORMALISATIONS, formula

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
stats = pytest.importorskip("scipy.stats", reason="scipy judges the quantiles")

Run = Callable[..., tuple[int, str, str]]
SIDE = 24
# Alphabetical, as Keras numbers folders. Mean RGB of each class, in bytes.
CLASSES = {
    "blue": (60, 60, 150),
    "cyan": (60, 140, 150),
    "dark": (40, 40, 40),
    "orange": (170, 100, 50),
    "red": (150, 60, 60),
    "white": (200, 190, 180),
}
NAMES = tuple(CLASSES)


def render(index: int, rng: np.random.Generator) -> Image.Image:
    """Return a noisy image of a class, 30 to 60 pixels a side, in random light."""
    height, width = rng.integers(30, 60, 2)
    light = rng.normal(0, 22) + rng.normal(0, 16, 3)
    pixels = np.array(CLASSES[NAMES[index]]) + light + rng.normal(0, 25, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 120 images, one folder for each class."""
    folder, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(5)
    for position in range(120):
        place = folder / NAMES[position % len(NAMES)] / f"{position}.png"
        place.parent.mkdir(exist_ok=True)
        render(position % len(NAMES), rng).save(place)
    return folder


def train(normalise: Callable[[NDArray[Any]], NDArray[Any]], *first: Any, mode: str = "RGB") -> Any:
    """Return a net trained on images that PIL resizes and `normalise` normalises."""
    keras = require("keras")
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(3)
    y = np.arange(600) % len(NAMES)
    images = [
        render(int(i), rng).convert(mode).resize((SIDE, SIDE), Image.Resampling.NEAREST) for i in y
    ]
    pixels = np.stack([np.array(image, np.float32).reshape(SIDE, SIDE, -1) for image in images])
    x = normalise(pixels)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            *first,
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(24, activation="relu"),
            layers.Dense(len(NAMES), activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=40, epochs=12, verbose=0)
    return model


@pytest.fixture(scope="module")
def unit_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model file trained on RGB, x / 255, load_img."""
    path = tmp_path_factory.mktemp("unit") / "unit.keras"
    train(lambda x: x / 255).save(path)
    return path


def test_the_normalisation_of_training_is_named_alone(
    unit_model: Path, labelled: Path, kedge: Run
) -> None:
    code, out, err = kedge("fit-input", unit_model, "--images", labelled, "--json")
    found = json.loads(out)
    assert (code, found["normalisation"], found["colour"]) == (0, "unit", "rgb")
    assert found["decided"]
    assert found["labelled"]
    assert found["images"] == 120
    assert f"labels: the 6 folders of {labelled} in alphabetical order" in err
    assert [row["possible"] for row in found["normalisations"]] == [True] + [False] * 9
    possible = [name for row in found["geometries"] if row["possible"] for name in row["pipelines"]]
    assert "load_img" in possible
    assert {"load_img", "flow_from_directory"} <= set(possible)  # one geometry, both names
    assert found["flags"].endswith("--normalisation unit")


def test_the_table_says_what_is_known_and_ends_with_the_options(
    unit_model: Path, labelled: Path, kedge: Run
) -> None:
    code, out, _ = kedge("fit-input", unit_model, "--images", labelled)
    assert code == 0
    tables = out[: out.index("normalisation: x / 255")].splitlines()
    assert max(map(len, tables)) <= 80
    assert "normalisation: x / 255 (--normalisation unit)" in out
    assert "flow_from_directory" in out
    assert out.strip().splitlines()[-1].startswith("--preprocess ")
    assert "…" not in out


def test_bgr_is_told_from_rgb(tmp_path: Path, labelled: Path, kedge: Run) -> None:
    train(lambda x: x[..., ::-1] / 255).save(tmp_path / "bgr.keras")
    code, out, _ = kedge("fit-input", tmp_path / "bgr.keras", "--images", labelled, "--json")
    found = json.loads(out)
    assert (code, found["normalisation"], found["colour"]) == (0, "unit", "bgr")


def test_grey_models_have_three_normalisations(tmp_path: Path, labelled: Path, kedge: Run) -> None:
    train(lambda x: x / 255, mode="L").save(tmp_path / "grey.keras")
    _, out, _ = kedge("fit-input", tmp_path / "grey.keras", "--images", labelled, "--json")
    found = json.loads(out)
    assert (found["normalisation"], found["colour"]) == ("unit", "grey")
    assert {row["normalisation"] for row in found["normalisations"]} == {"unit", "tf", "raw"}
    assert "--colour" not in found["flags"]


def test_a_model_that_normalises_bytes_itself_takes_them_raw(
    tmp_path: Path, labelled: Path, kedge: Run
) -> None:
    rescaling = require("keras").layers.Rescaling(1 / 255, name="to_unit")
    train(lambda x: x, rescaling).save(tmp_path / "inside.keras")
    code, out, _ = kedge("fit-input", tmp_path / "inside.keras", "--images", labelled)
    assert code == 0
    assert "normalisation: 0 to 255 (--normalisation raw)" in out
    assert "the model normalises bytes itself (to_unit)" in out


def test_normalisations_that_a_model_cannot_tell_apart_are_the_same(
    tmp_path: Path, labelled: Path, kedge: Run
) -> None:
    norm = require("keras").layers.LayerNormalization(
        axis=(1, 2, 3), epsilon=1e-9, center=False, scale=False
    )
    train(lambda x: x / 255, norm).save(tmp_path / "norm.keras")
    code, out, _ = kedge("fit-input", tmp_path / "norm.keras", "--images", labelled, "--json")
    found = json.loads(out)
    same = {(row["normalisation"], row["colour"]) for row in found["normalisations"] if row["same"]}
    assert same == {("unit", "rgb"), ("tf", "rgb"), ("raw", "rgb")}
    assert code == 0


def test_without_ground_truth_the_winner_is_named_and_the_weakness(
    unit_model: Path, labelled: Path, kedge: Run
) -> None:
    call = ("fit-input", unit_model, "--images", labelled, "--truth", "none")
    _, out, _ = kedge(*call)
    assert "ground truth: none" in out
    assert "geometry: undecided without ground truth" in out
    _, out, _ = kedge(*call, "--json")
    found = json.loads(out)
    assert found["normalisation"] == "unit"
    assert not found["labelled"]
    assert found["geometries"] is None


def test_batch_norms_tell_the_normalisation_and_the_colour_without_ground_truth(
    tmp_path: Path, labelled: Path, kedge: Run
) -> None:
    norm = require("keras").layers.BatchNormalization(momentum=0.9)
    train(lambda x: x[..., ::-1] / 127.5 - 1, norm).save(tmp_path / "norm.keras")
    call = ("--images", labelled, "--truth", "none", "--json")
    _, out, _ = kedge("fit-input", tmp_path / "norm.keras", *call)
    found = json.loads(out)
    assert (found["normalisation"], found["colour"]) == ("tf", "bgr")
    possible = [row["normalisation"] for row in found["normalisations"] if row["possible"]]
    assert set(possible) == {"tf"}


def normed(pixels: NDArray[Any], *, trainable: bool = True) -> Any:
    """Return a net that begins with a batch norm of the statistics of `pixels`."""
    layers = require("keras").layers
    norm = layers.BatchNormalization(trainable=trainable)
    model = require("keras").Sequential(
        [require("keras").Input((8, 8, 3)), norm, layers.GlobalAveragePooling2D(), layers.Dense(2)]
    )
    norm.moving_mean.assign(pixels.mean(axis=(0, 1, 2)))
    norm.moving_variance.assign(pixels.var(axis=(0, 1, 2)))
    return model


def test_the_divergence_from_batch_norms_is_that_of_normal_distributions() -> None:
    rng = np.random.default_rng(2)
    pixels = rng.normal((90, 120, 160), (30, 50, 20), (40, 8, 8, 3)).clip(0, 255).astype(np.uint8)
    norms = norms_of(normed(pixels / 255))
    assert norms is not None
    tried = candidates.normalisations(load_input(3), 3, ("load_img",))
    fed = {each.normalisation: each for each in tried if each.colour == "rgb"}
    for name, scale, offset in (("unit", 255, 0), ("tf", 127.5, 1)):
        found = norms.divergence(outputs(norms.model, pixels, fed[name].input)).mean()
        ours, theirs = pixels / scale - offset, pixels / 255
        var, learned = (each.var(axis=(0, 1, 2)) + 1e-3 for each in (ours, theirs))
        apart = (ours.mean(axis=(0, 1, 2)) - theirs.mean(axis=(0, 1, 2))) ** 2
        exact = ((var + apart) / learned - 1 - np.log(var / learned)).mean() / 2
        assert found == pytest.approx(exact, rel=1e-3, abs=1e-5), name


def test_frozen_batch_norms_and_none_tell_nothing(unit_model: Path) -> None:
    assert norms_of(normed(np.ones((2, 8, 8, 3)), trainable=False)) is None
    assert norms_of(require("keras").models.load_model(unit_model)) is None


def test_classes_in_another_order_are_no_better_than_chance(
    unit_model: Path, labelled: Path, tmp_path: Path, kedge: Run
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join((*NAMES[1:], NAMES[0])))
    code, out, _ = kedge("fit-input", unit_model, "--images", labelled, "--labels", labels)
    assert code == 3
    assert "no candidate is better than chance" in out


def test_a_few_images_leave_the_normalisation_open(
    unit_model: Path, labelled: Path, kedge: Run
) -> None:
    call = ("fit-input", unit_model, "--images", labelled, "--count", 10, "--seed", 3)
    code, out, _ = kedge(*call)
    assert code == 3
    assert "normalisation: undecided on 10 images between" in out


def test_features_and_too_few_images_are_usage_errors(
    tmp_path: Path, unit_model: Path, labelled: Path, kedge: Run
) -> None:
    code, _, err = kedge("fit-input", unit_model, "--images", labelled / "red" / "none")
    assert code == 2
    assert "no such folder" in err
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    code, _, err = kedge("fit-input", unit_model, "--images", tmp_path)
    assert code == 2
    assert "at least 10 are needed" in err


def convert(unit_model: Path, labelled: Path, out: Path, normalisation: str) -> list[object]:
    labels = out / "labels.txt"
    labels.write_text("\n".join(NAMES))
    words = f"--to onnx:float32 --preprocess image_dataset --normalisation {normalisation} "
    words += f"--check-count 60 --labels {labels}"
    return ["convert", unit_model, *words.split(), "--calibrate", labelled, "--out", out]


def test_convert_stops_where_another_input_fits_better(
    unit_model: Path, labelled: Path, tmp_path: Path, kedge: Run
) -> None:
    code, _, err = kedge(*convert(unit_model, labelled, tmp_path, "tf"))
    line = err.strip().splitlines()[-1]
    assert code == 2
    assert line.startswith("kedge: unit: x / 127.5 - 1 gets ")
    assert "x / 255 gets" in line
    assert line.endswith("give --normalisation unit, or --force-input to keep it")
    assert not list(tmp_path.glob("*.onnx"))


def test_convert_goes_on_by_force_and_with_the_input_of_training(
    unit_model: Path, labelled: Path, tmp_path: Path, kedge: Run
) -> None:
    code, _, err = kedge(*convert(unit_model, labelled, tmp_path, "tf"), "--force-input")
    assert code == 0, err
    code, _, err = kedge(*convert(unit_model, labelled, tmp_path, "unit"))
    assert code == 0, err


def test_the_check_of_convert_needs_true_classes(
    unit_model: Path, labelled: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(NAMES))
    words = InputOptions("image_dataset", "tf")
    source = load_source(SourceRequest(str(unit_model), pixels=words, labels=str(labels)))
    paths = sorted(labelled.rglob("*.png"))
    classes = true_outputs(paths, source)
    found = better_input(source, paths[::2], None if classes is None else classes[::2])
    assert found is not None
    assert found.better.candidate.normalisation == "unit"
    assert better_input(source, paths[::2], None) is None
    stray = tmp_path / "stray.png"
    assert true_outputs([*paths, stray], source) is None


def test_what_no_answers_could_improve_is_not_tried(unit_model: Path, labelled: Path) -> None:
    tried: list[Any] = []
    paths = sorted(labelled.rglob("*.png"))
    for words in (InputOptions("load_img", "unit"), InputOptions("load_img", "tf")):
        source = load_source(
            SourceRequest(str(unit_model), pixels=words, folder=str(labelled), force_input=True)
        )

        def asked(pixels: NDArray[Any], spec: Any, source: Any = source) -> NDArray[Any]:
            tried.append(spec)
            (values,) = outputs(source.model, pixels, spec)
            return scores.evidence(values, source.output)

        model = scores.TestedModel(source.name, source.input, source.output, asked)
        classes = true_outputs(paths, source)
        known = source.logits(tensors(paths, source.input)).astype(np.float64)
        found = scores.better_input(model, paths, classes, scores.evidence(known, source.output))
        if words.normalisation == "unit":
            right = known.argmax(axis=1) == np.array(classes)
            assert right.mean() > 0.9
            assert {one.geometry for one in tried} <= {source.input.geometry}
            assert found is None
        else:
            assert found is not None
            assert found.better.candidate.normalisation == "unit"
            assert source.input not in tried  # its answers are known
            again = scores.better_input(model, paths, classes)
            assert again is not None
            assert again.line == found.line
        tried.clear()


def test_candidates_are_all_names_in_all_colours_without_repeats() -> None:
    fed = load_input(3)
    found = candidates.normalisations(fed, 3, ("load_img",))
    assert len({one.input.normalisation for one in found}) == 2 * len(NORMALISATIONS)
    grey = candidates.normalisations(load_input(1), 1, ("load_img",))
    assert [one.normalisation for one in grey] == ["unit", "tf", "raw"]
    assert all(one.formula.startswith(formula(one.input.normalisation)) for one in found)


def load_input(channels: int) -> Any:
    from kedge_runtime.artefact.contract import Geometry, Input, Normalisation

    colour = "grey" if channels == 1 else "rgb"
    return Input(Geometry(8, 8), Normalisation(colour))  # type: ignore[arg-type]


@pytest.mark.parametrize("images", [10, 30, 200])
@pytest.mark.parametrize("compared", [1, 9])
def test_quantiles_are_student_s(images: int, compared: int) -> None:
    exact = stats.t.isf(0.05 / compared, images - 1)
    assert scores.quantile(images, compared) == pytest.approx(exact, rel=0.01)


def test_overconfidence_costs_little_and_another_scale_much() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 5, 300)
    logits = rng.normal(0, 1, (300, 5)) + 2 * np.eye(5)[classes]
    value = {
        by: scores.likelihood(scores.evidence(logits * by, Output()), classes).mean()
        for by in (1, 3, 0.01, 255)
    }
    assert value[3] == pytest.approx(value[1], abs=0.02)
    assert value[1] > 0.5
    assert value[0.01] < 0.1
    assert value[255] < value[1] - 0.2
    assert scores.likelihood(rng.normal(0, 9, (300, 5)), classes).mean() < 0


def test_an_infinite_answer_is_chance() -> None:
    values = scores.evidence(np.array([[np.inf, 0.0], [2.0, 0.0]]), Output())
    assert values.tolist() == [[0, 0], [0, -2]]


def test_views_that_agree_on_varied_answers_score_higher() -> None:
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 4, 200)
    sure = 4 * np.eye(4)[classes]
    mixed = [
        scores.agreement(sure + rng.normal(0, s, sure.shape), sure + rng.normal(0, s, sure.shape))
        for s in (0.1, 2, 6)
    ]
    assert all(a.mean() > b.mean() for a, b in pairwise(mixed))
    same = np.tile([3.0, 0, 0, 0], (200, 1))
    assert scores.agreement(same, same).mean() == pytest.approx(0, abs=1e-6)


def test_the_second_view_has_the_same_size() -> None:
    for channels in (1, 3):
        pixels = np.zeros((2, 20, 30, channels), np.uint8)
        assert zoomed(pixels).shape == pixels.shape
