"""Frozen .pb graphs, made by TensorFlow 1's ways (`make_graph_models.py`), and its answers."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from kedge_convert.load.registry import kind_of, load
from kedge_convert.load.request import SourceRequest
from kedge_runtime.errors import UsageError

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

MODELS = Path(__file__).parent / "models"
GRAPHS = MODELS / "graphs"
EXPECTED = dict(np.load(GRAPHS / "answers.npz"))
PICTURES = EXPECTED["pictures"]

ANSWERS = [
    ("one_output", None, "softmax"),
    ("two_outputs", "doubled", "doubled"),
    ("two_outputs", "softmax", "softmax"),
    ("two_outputs", "0", "doubled"),
    ("defaults", None, "softmax"),
    ("switched", None, "softmax"),
]


@pytest.mark.parametrize(("name", "asked", "answer"), ANSWERS)
def test_a_frozen_graph_answers_as_in_tensorflow(name: str, asked: str | None, answer: str) -> None:
    found = load(SourceRequest(str(GRAPHS / f"{name}.pb"), output=asked))
    assert found.name == name
    expected = EXPECTED[f"{name}_{answer}"]
    np.testing.assert_allclose(found.model(PICTURES), expected, atol=1e-6)
    assert np.ptp(expected, axis=0).max() > 0.01


REFUSED = {
    "two_outputs": r"its outputs are doubled, softmax: name one with --output, such as --output d",
    "undecided": r"training switch without a default, keep_prob \(float32\)",
    "decoding": r"decodes image files itself \(DecodeJpeg\): save it with a signature that",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_fed_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UsageError, match=REFUSED[name]) as caught:
        load(SourceRequest(str(GRAPHS / f"{name}.pb")))
    assert "\n" not in str(caught.value)


def test_an_output_that_is_not_there_is_refused_with_the_list() -> None:
    with pytest.raises(UsageError, match=r"--output top: .* its outputs are doubled, softmax$"):
        load(SourceRequest(str(GRAPHS / "two_outputs.pb"), output="top"))


def test_the_graph_of_a_saved_model_means_its_folder(tmp_path: Path) -> None:
    folder = MODELS / "legacy" / "sequential"
    assert kind_of(folder / "saved_model.pb") == "SavedModel"
    by_file, by_folder = (
        load(SourceRequest(str(each))) for each in (folder / "saved_model.pb", folder)
    )
    assert by_file.name == by_folder.name == "sequential"
    pictures = np.load(MODELS / "legacy" / "answers.npz")["pictures"]
    np.testing.assert_array_equal(by_file.model(pictures), by_folder.model(pictures))


def test_what_a_file_holds_decides_here_too(tmp_path: Path) -> None:
    shutil.copy(GRAPHS / "one_output.pb", tmp_path / "graph.bin")
    assert kind_of(tmp_path / "graph.bin") == "frozen graph"
    shutil.copy(MODELS / "legacy" / "sequential" / "saved_model.pb", tmp_path / "renamed.pb")
    with pytest.raises(UsageError, match="no Keras model in this file"):
        kind_of(tmp_path / "renamed.pb")


def test_a_cut_graph_is_refused_in_one_line(tmp_path: Path) -> None:
    whole = (GRAPHS / "one_output.pb").read_bytes()
    (tmp_path / "cut.pb").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"cut.pb: TensorFlow can't load it: ") as caught:
        load(SourceRequest(str(tmp_path / "cut.pb")))
    assert "\n" not in str(caught.value)
