"""A key that a kedge.toml lacks is a usage error: exit code 2 and one line, no failed gate."""

from pathlib import Path

import pytest

from conftest import Run
from kedge_convert.toolkit import require
from kedge_runtime.cli import kedge as commands

# What a model of its own needs, and the key that asks for it.
NEEDED = {
    "preprocess": 'preprocess = "image_dataset"',
    "normalisation": 'normalisation = "tf"',
    "labels": 'labels = "labels.txt"',
    "calibrate": 'calibrate = "photos"',
}
HEAD = '[[model]]\nname = "tiny"\nsource = "tiny.keras"\ntargets = ["tflite:int8"]\n'


@pytest.fixture
def desk(tmp_path: Path, tiny_model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, which holds a model, its labels and images."""
    for name, target in (("tiny.keras", tiny_model), ("photos", pictures)):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "labels.txt").symlink_to(tiny_model.with_name("labels.txt"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("missing", NEEDED)
def test_a_missing_key_is_exit_code_2(kedge: Run, desk: Path, missing: str) -> None:
    rest = [line for key, line in NEEDED.items() if key != missing]
    (desk / "kedge.toml").write_text(HEAD + "\n".join(rest))
    code, printed, said = kedge("build", "--cache", desk / "cache")
    assert (code, printed, said.count("\n")) == (2, "", 1), said
    assert f"tiny: tiny.keras: give {missing} (" in said
    assert f"Add to its [[model]], for example: {missing} = " in said
    assert not (desk / "out").exists()


def test_all_missing_keys_come_in_one_line_of_toml(kedge: Run, desk: Path) -> None:
    (desk / "kedge.toml").write_text(HEAD)
    code, _, said = kedge("build", "--cache", desk / "cache")
    assert code == 2
    example = said.partition("for example: ")[2].strip().replace(", ", "\n")
    assert [line.partition(" = ")[0] for line in example.splitlines()] == list(NEEDED)
    assert "--preprocess" not in said
    (desk / "labels.txt").rename(desk / "other.txt")
    (desk / "kedge.toml").write_text(HEAD + example)
    assert "labels.txt" in kedge("build", "--cache", desk / "cache")[2]


def test_a_key_that_only_the_loaded_model_asks_for(kedge: Run, desk: Path) -> None:
    with_labels = require("keras").models.load_model(desk / "tiny.keras")
    with_labels.export(str(desk / "graph"), verbose=False)
    lines = [line for key, line in NEEDED.items() if key != "labels"]
    text = HEAD.replace("tiny.keras", "graph") + "\n".join(lines)
    (desk / "kedge.toml").write_text(text)
    code, printed, said = kedge("build", "--cache", desk / "cache")
    assert (code, printed) == (2, ""), said
    assert "give labels (FILE with the names of its 5 classes" in said.splitlines()[-1]


def test_without_a_kedge_toml_init_is_named(
    kedge: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, said = kedge("build")
    assert (code, printed, said.count("\n")) == (2, "", 1)
    assert said.rstrip().endswith("write one: kedge init MODEL DIR")
    assert commands.get_command(None, "init")  # type: ignore[arg-type]
