"""`kedge classify` as a user meets it: a process with an exit code, stdout and stderr."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from kedge_runtime.cli import COMMANDS, kedge

pytest.importorskip("ai_edge_litert")

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture
def artefact(artefacts: Path) -> Path:
    return artefacts / "tiny.tflite"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder with red.png, green.png and, one folder down, blue.png."""
    folder = tmp_path / "pictures"
    for name, colour in COLOURS.items():
        path = folder / ("below" if name == "blue" else "") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.broadcast_to(np.array(colour[::-1], np.uint8), (30, 20, 3))
        path.write_bytes(cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes())
    (folder / "notes.txt").write_text("no picture")
    return folder


def _kedge(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "kedge_runtime.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_json_is_all_that_stdout_holds(artefact: Path, pictures: Path) -> None:
    done = _kedge("classify", artefact, pictures / "red.png", "--json", "--top", 2)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert list(answer) == ["schema", "command", "artefact", "results"]
    assert (answer["schema"], answer["command"]) == (1, "classify")
    (result,) = answer["results"]
    assert result["image"] == str(pictures / "red.png")
    assert [p["name"] for p in result["predictions"]] == ["red", "dark"]
    assert set(result["predictions"][0]) == {"index", "id", "name", "probability"}


def test_words_name_the_picture_and_its_classes(artefact: Path, pictures: Path) -> None:
    done = _kedge("classify", artefact, pictures / "red.png")
    assert (done.returncode, done.stderr) == (0, "")
    first, second, *others = done.stdout.splitlines()
    assert first == str(pictures / "red.png")
    assert second.endswith("%  red (t0)")
    assert len(others) == 3


BAD = {
    "missing": None,
    "empty": b"",
    "text": b"words",
    "half a PNG": cv2.imencode(".png", np.zeros((90, 90, 3), np.uint8))[1].tobytes()[:60],
    "half a BMP": cv2.imencode(".bmp", np.zeros((90, 90, 3), np.uint8))[1].tobytes()[:600],
    "half a JPEG": cv2.imencode(".jpg", np.zeros((90, 90, 3), np.uint8))[1].tobytes()[:500],
}


@pytest.mark.parametrize("case", BAD)
def test_one_bad_picture_costs_one_line_and_the_good_ones_are_answered(
    artefact: Path, pictures: Path, case: str
) -> None:
    bad, content = pictures / "bad.jpg", BAD[case]
    if content is not None:
        bad.write_bytes(content)
    done = _kedge("classify", artefact, pictures / "red.png", bad, pictures / "green.png", "--json")
    assert done.returncode == 2
    named = [result["predictions"][0]["name"] for result in json.loads(done.stdout)["results"]]
    assert named == ["red", "green"]
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"kedge: {bad}: ")


def test_a_folder_is_searched_in_order(artefact: Path, pictures: Path) -> None:
    done = CliRunner().invoke(kedge, ["classify", str(artefact), str(pictures), "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    images = [result["image"] for result in json.loads(done.stdout)["results"]]
    expected = ["below/blue.png", "green.png", "red.png"]
    assert images == [str(pictures / name) for name in expected]


def test_a_folder_without_pictures_is_a_mistake(artefact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nothing"
    folder.mkdir()
    (folder / "notes.txt").write_text("words")
    done = _kedge("classify", artefact, folder, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"kedge: {folder}: no pictures in it (.bmp, .jpeg, .jpg")


def _mistakes(artefact: Path, pictures: Path) -> dict[str, list[object]]:
    changed = pictures / "changed.tflite"
    content = artefact.read_bytes()
    changed.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    return {
        "missing artefact": [pictures / "none.tflite", pictures / "red.png"],
        "wrong suffix": [pictures / "notes.txt", pictures / "red.png"],
        "changed artefact": [changed, pictures / "red.png"],
        "no picture": [artefact],
        "top of nothing": [artefact, pictures / "red.png", "--top", 0],
        "unknown option": [artefact, pictures / "red.png", "--fast"],
    }


CASES = [
    ("missing artefact", "no such file"),
    ("wrong suffix", "artefacts end in .tflite, .onnx"),
    ("changed artefact", "changed since it was sealed"),
    ("no picture", "Missing argument 'IMAGE...'"),
    ("top of nothing", "0 is not in the range x>=1"),
    ("unknown option", "No such option"),
]


@pytest.mark.parametrize(("case", "message"), CASES)
def test_a_mistake_ends_in_code_2_without_a_traceback(
    artefact: Path, pictures: Path, case: str, message: str
) -> None:
    done = _kedge("classify", *_mistakes(artefact, pictures)[case])
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_both_formats_answer_alike(artefacts: Path, pictures: Path) -> None:
    pytest.importorskip("onnxruntime")
    for form in ("tflite", "onnx"):
        done = _kedge("classify", artefacts / f"tiny.{form}", pictures / "green.png", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["results"][0]["predictions"][0]["name"] == "green"


def test_an_unknown_command_is_a_mistake() -> None:
    done = _kedge("classifie")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'classifie'" in done.stderr


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_every_command(option: str) -> None:
    done = CliRunner().invoke(kedge, [option])
    assert done.exit_code == 0
    for name, (_, line) in COMMANDS.items():
        assert name in done.output
        assert line in done.output
