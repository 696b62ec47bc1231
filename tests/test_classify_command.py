"""`kedge classify` as a user meets it: a process with an exit code, stdout and stderr."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.cli import COMMANDS, kedge
from kedge_runtime.commands.answers import comparison_head

pytest.importorskip("ai_edge_litert")

FACTS = {
    "schema": 1,
    "input": {
        "geometry": {"height": 16, "width": 16, "fit": "stretch"},
        "normalisation": {"divisor": 127.5, "mean": [1, 1, 1]},
    },
    "output": {"kind": "logits"},
    "labels": "names.txt",
}
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


def _kedge(*arguments: object, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "kedge_runtime.cli", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "80"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, input=stdin, env=environment
    )


def test_json_is_all_that_stdout_holds(artefact: Path, pictures: Path) -> None:
    done = _kedge("classify", artefact, pictures / "red.png", "--json", "--top", 2)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    keys = ["schema", "command", "artefacts", "ensemble", "results", "failed"]
    assert list(answer) == keys
    assert (answer["schema"], answer["command"]) == (1, "classify")
    assert (answer["artefacts"], answer["ensemble"]) == ([str(artefact)], False)
    assert answer["failed"] == []
    (result,) = answer["results"]
    assert result["image"] == str(pictures / "red.png")
    assert result["artefact"] == str(artefact)
    assert (result["label"], result["unknown"]) == ("red", False)
    assert 0 < result["margin"] < 1 and 0 < result["entropy"] < 1
    assert result["best"] == result["predictions"][0]
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
    answer = json.loads(done.stdout)
    assert [result["label"] for result in answer["results"]] == ["red", "green"]
    (failed,) = answer["failed"]
    assert failed["image"] == str(bad)
    assert done.stderr.splitlines() == [
        f"kedge: {failed['error']}",
        "kedge: 3 images, 1 failed",
    ]
    assert failed["error"].startswith(f"{bad}: ")


def test_a_name_that_the_system_refuses_is_one_bad_picture(artefact: Path, pictures: Path) -> None:
    done = _kedge("classify", artefact, pictures / ("x" * 300), pictures / "red.png", "--json")
    answer = json.loads(done.stdout)
    assert [result["label"] for result in answer["results"]] == ["red"]
    assert ["file name too long" in failure["error"] for failure in answer["failed"]] == [True]


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
    assert done.stderr.startswith(f"kedge: {folder}: no images in it (.bmp, .jpeg, .jpg")


def _mistakes(artefact: Path, pictures: Path) -> dict[str, list[object]]:
    changed = pictures / "changed.tflite"
    content = artefact.read_bytes()
    (pictures / "facts.json").write_text(json.dumps({**FACTS, "labels": []}))
    changed.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    return {
        "missing artefact": [pictures / "none.tflite", pictures / "red.png"],
        "wrong suffix": [pictures / "notes.txt", pictures / "red.png"],
        "changed artefact": [changed, pictures / "red.png"],
        "no picture": [artefact],
        "no artefact": [pictures / "red.png"],
        "a pattern of nothing": [artefact, pictures / "*.gif"],
        "a threshold for one answer": [artefact, pictures / "red.png", "--threshold", 0.5],
        "features of a classifier": [artefact, pictures, "--save-features", pictures / "x.npz"],
        "a sheet of another kind": [artefact, pictures, "--sheet", pictures / "x.jpg"],
        "a sheet nowhere": [artefact, pictures, "--sheet", pictures / "none" / "x.png"],
        "confidence above one": [artefact, pictures, "--min-confidence", 1.5],
        "a contract too many": [artefact, pictures, "--contract", pictures / "facts.json"],
        "no contract": [artefact, pictures, "--contract", pictures / "none.json"],
        "another engine": [artefact, pictures, "--engine", "onnxruntime"],
        "top of nothing": [artefact, pictures / "red.png", "--top", 0],
        "unknown option": [artefact, pictures / "red.png", "--fast"],
    }


CASES = [
    ("missing artefact", "no such file"),
    ("wrong suffix", "end in .tflite, .onnx"),
    ("no artefact", "end in .tflite, .onnx"),
    ("a pattern of nothing", "*.gif: no file matches"),
    ("a threshold for one answer", "see --min-confidence"),
    ("features of a classifier", "outputs logits, not features"),
    ("a sheet of another kind", "its name must end in .png"),
    ("a sheet nowhere", "can't be written there"),
    ("confidence above one", "1.5 is not in the range 0<=x<=1"),
    ("a contract too many", "every artefact has its own"),
    ("no contract", "none.json: no such file"),
    ("another engine", "onnxruntime runs no .tflite files"),
    ("changed artefact", "changed since it was sealed"),
    ("no picture", "no images given: name files, folders"),
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


@pytest.fixture
def several(artefacts: Path) -> list[Path]:
    pytest.importorskip("onnxruntime")
    return [artefacts / "tiny.tflite", artefacts / "tiny.onnx"]


def test_several_artefacts_are_compared_in_one_table(several: list[Path], pictures: Path) -> None:
    done = _kedge("classify", *several, pictures)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == [f" 1  {several[0]}", f" 2  {several[1]}"]
    rows = lines[4:7]
    for row, colour in zip(rows, ("blue", "green", "red"), strict=True):
        assert f"{colour}.png" in row
        assert len(re.findall(rf"\d+ % {colour}\b", row)) == 2
        assert row.startswith("  ")
    assert max(map(len, lines[3:])) <= 80
    assert lines[-1] == "! the models disagree on 0 of 3 images"


@pytest.mark.parametrize(("count", "columns"), [(39, 80), (8, 16), (3, 1)])
def test_a_narrow_terminal_has_room_for_any_number_of_models(
    monkeypatch: pytest.MonkeyPatch, count: int, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    table = comparison_head(["model"] * count).splitlines()
    assert len(table) == count + 2
    assert table[-1].startswith("  i")


def test_models_that_disagree_are_marked(several: list[Path], pictures: Path) -> None:
    # The int8 network is a little less sure of blue than the float one.
    blue = pictures / "below" / "blue.png"
    done = _kedge("classify", *several, blue, "--json")
    shares = [result["best"]["probability"] for result in json.loads(done.stdout)["results"]]
    between = sum(shares) / 2
    done = _kedge("classify", *several, blue, "--min-confidence", between)
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("! ")][:1]
    assert "unknown (blue?)" in row
    assert done.stdout.endswith("! the models disagree on 1 of 1 images\n")


def test_a_comparison_in_json_has_a_result_per_picture_and_artefact(
    several: list[Path], pictures: Path
) -> None:
    done = _kedge("classify", *several, pictures / "red.png", pictures / "green.png", "--json")
    answer = json.loads(done.stdout)
    assert answer["artefacts"] == list(map(str, several))
    found = [(Path(r["image"]).stem, r["artefact"], r["label"]) for r in answer["results"]]
    expected = [(name, str(path), name) for name in ("red", "green") for path in several]
    assert found == expected


def test_an_ensemble_answers_once(several: list[Path], pictures: Path) -> None:
    red = pictures / "red.png"
    alone = json.loads(_kedge("classify", *several, red, "--json").stdout)["results"]
    done = _kedge("classify", *several, "--ensemble", red, "--json")
    answer = json.loads(done.stdout)
    (result,) = answer["results"]
    assert (answer["ensemble"], result["artefact"]) == (True, "ensemble")
    mean = sum(r["best"]["probability"] for r in alone) / 2
    assert result["best"]["probability"] == pytest.approx(mean, rel=1e-6)


def test_an_unknown_says_so(artefact: Path, pictures: Path) -> None:
    arguments = (artefact, pictures / "red.png", "--min-confidence", 1)
    result = json.loads(_kedge("classify", *arguments, "--json").stdout)["results"][0]
    assert (result["unknown"], result["label"], result["best"]["name"]) == (True, None, "red")
    assert ": unknown\n" in _kedge("classify", *arguments).stdout
    assert "unknown (red?)" in _kedge("classify", *arguments, "--top", 1).stdout
    assert ": unknown" not in _kedge("classify", *arguments[:2], "--max-entropy", 0.9).stdout
    assert ": unknown" in _kedge("classify", *arguments[:2], "--max-entropy", 0.1).stdout


def test_a_pattern_in_quotes_and_names_on_stdin(artefact: Path, pictures: Path) -> None:
    done = _kedge("classify", artefact, pictures / "*.png", "--top", 1)
    assert [Path(line.split()[-1]).name for line in done.stdout.splitlines()] == [
        "green.png",
        "red.png",
    ]
    names = f"{pictures / 'red.png'}\n\n{pictures / 'none.png'}\n{pictures / 'green.png'}"
    done = _kedge("classify", artefact, "-", "--json", stdin=names)
    answer = json.loads(done.stdout)
    assert [result["label"] for result in answer["results"]] == ["red", "green"]
    assert done.returncode == 2
    assert done.stderr.endswith("kedge: 3 images, 1 failed\n")


def test_names_on_stdin_are_bytes_whatever_ends_their_lines(
    artefact: Path, pictures: Path, tmp_path: Path
) -> None:
    odd = os.fsdecode(b"r\xffd.png")
    (pictures / "red.png").rename(pictures / odd)
    names = tmp_path / "names.txt"
    names.write_bytes(os.fsencode(f"{pictures / odd}\r\n{pictures / 'green.png'}\r\n"))
    command = [sys.executable, "-m", "kedge_runtime.cli", "classify", str(artefact), "-", "--json"]
    with names.open("rb") as stdin:
        done = subprocess.run(command, capture_output=True, stdin=stdin, check=False)
    answer = json.loads(done.stdout)
    assert [result["label"] for result in answer["results"]] == ["red", "green"]


@pytest.mark.parametrize("names", ["", "\n\n"])
def test_no_names_on_stdin_are_a_mistake(artefact: Path, names: str) -> None:
    done = _kedge("classify", artefact, "-", stdin=names)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "kedge: no images: stdin has no names\n"


def test_a_name_that_looks_like_a_pattern_is_a_name(artefact: Path, pictures: Path) -> None:
    odd = pictures / "[red]*.png"
    (pictures / "red.png").rename(odd)
    done = _kedge("classify", artefact, odd, "--json")
    assert [result["image"] for result in json.loads(done.stdout)["results"]] == [str(odd)]


def test_a_name_that_is_no_text_is_shown_all_the_same(artefact: Path, pictures: Path) -> None:
    odd = Path(os.fsdecode(bytes(pictures) + b"/r\xffd.png"))
    (pictures / "red.png").rename(odd)
    done = _kedge("classify", artefact, odd)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"r\udcffd.png" in done.stdout


def test_facts_make_a_foreign_file_usable(
    models: dict[str, bytes], artefact: Path, pictures: Path
) -> None:
    foreign, facts = pictures / "foreign.tflite", pictures / "facts.json"
    foreign.write_bytes(models["tflite"])
    facts.write_text(json.dumps(FACTS))
    (pictures / "names.txt").write_text("red\ngreen\nblue\ndark\n")
    # Beside a sealed file, which keeps its own.
    done = _kedge("classify", foreign, artefact, "--contract", facts, pictures / "red.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("% red") == 2
    assert _kedge("classify", foreign, pictures / "red.png").returncode == 2


@pytest.fixture
def embedding(
    pictures: Path, contracts: dict[str, Contract], models: dict[str, bytes], golden: Golden
) -> Path:
    contract = contracts["tflite"]
    contract = replace(contract, output=replace(contract.output, kind="features"), labels=())
    path = pictures / "embedding.tflite"
    path.write_bytes(seal("tflite", models["tflite"], contract, golden))
    return path


def test_features_are_saved_with_their_names(embedding: Path, pictures: Path) -> None:
    out = pictures / "out.npz"
    out.write_bytes(b"what was there before")
    words = (embedding, pictures / "red.png", pictures / "none.png", pictures / "green.png")
    done = _kedge("classify", *words, "--save-features", out, "--json")
    assert done.returncode == 2
    assert done.stderr.endswith("kedge: 3 images, 1 failed\n")
    with np.load(out, allow_pickle=False) as saved:
        assert sorted(saved) == ["features", "names"]
        assert saved["names"].tolist() == [str(words[1]), str(words[3])]
        assert (saved["features"].shape, saved["features"].dtype) == ((2, 4), np.float32)
        assert saved["features"].argmax(axis=1).tolist() == [0, 1]
    assert [result["shape"] for result in json.loads(done.stdout)["results"]] == [[4], [4]]
    assert not list(pictures.glob(".kedge-*"))


def test_features_without_a_readable_picture_are_not_saved(embedding: Path, pictures: Path) -> None:
    out = pictures / "out.npz"
    done = _kedge("classify", embedding, pictures / "none.png", "--save-features", out)
    assert done.returncode == 2
    assert not out.exists()


def test_features_are_no_answers(embedding: Path, pictures: Path) -> None:
    done = _kedge("classify", embedding, pictures / "red.png")
    assert done.returncode == 2
    assert "use --save-features" in done.stderr


def _multi(
    pictures: Path, contract: Contract, model: bytes, golden: Golden, thresholds: Sequence[float]
) -> Path:
    output = replace(contract.output, activation="sigmoid", thresholds=tuple(thresholds))
    path = pictures / "multi.tflite"
    path.write_bytes(seal("tflite", model, replace(contract, output=output), golden))
    return path


def test_a_model_with_several_answers_names_all_that_reach_their_threshold(
    pictures: Path, contracts: dict[str, Contract], models: dict[str, bytes], golden: Golden
) -> None:
    path = _multi(pictures, contracts["tflite"], models["tflite"], golden, ())
    red = pictures / "red.png"
    # By hand: logits 4, 0, 0, 4/3 within two int8 steps, so .98, about .5, about .5, .79.
    for threshold, expected in ((0.7, ["red", "dark"]), (0.9, ["red"]), (0.999, [])):
        done = _kedge("classify", path, red, "--threshold", threshold, "--json")
        (result,) = json.loads(done.stdout)["results"]
        assert [p["name"] for p in result["predictions"]] == expected
        assert result["unknown"] is (expected == [])
    done = _kedge("classify", path, red, "--threshold", 0.999)
    assert "no class reaches its threshold; best: " in done.stdout


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
    words = " ".join(done.output.split())
    for name, (_, line) in COMMANDS.items():
        assert f"{name} {line}" in words


@pytest.fixture
def class_folders(pictures: Path) -> Path:
    """Return a folder with a picture in `red` and one in `green`, another class's."""
    folder = pictures.parent / "classes"
    for name, image in {"red": "red.png", "green": "red.png"}.items():
        (folder / name).mkdir(parents=True)
        (folder / name / image).write_bytes((pictures / image).read_bytes())
    return folder


def test_folders_named_like_classes_mark_right_and_wrong(
    artefact: Path, class_folders: Path
) -> None:
    done = _kedge("classify", artefact, class_folders, "--top", 1)
    right, wrong = (folder in done.stdout for folder in ("right ", "wrong "))
    first, second, blank, summary = done.stdout.splitlines()
    assert (right, wrong, blank) == (True, True, "")
    assert first.startswith("wrong") is not second.startswith("wrong")
    assert (", it is green" in first) is first.startswith("wrong")
    assert summary == "accuracy 50.0 % (1 of 2 images), 95 % CI 9.5 to 90.5 %"
    several = _kedge("classify", artefact, class_folders, "--top", 2).stdout
    assert "green/red.png: wrong, it is green\n" in several
    assert "red/red.png: right\n" in several


def test_without_truth_nothing_is_marked(artefact: Path, class_folders: Path) -> None:
    done = _kedge("classify", artefact, class_folders, "--top", 1, "--truth", "none")
    assert "right" not in done.stdout
    assert "accuracy" not in done.stdout


def test_a_table_tells_the_truth(artefact: Path, pictures: Path, tmp_path: Path) -> None:
    table = tmp_path / "truth.csv"
    table.write_text("red.png,t0\ngreen.png,t1\nbelow/blue.png,t1\n")
    done = _kedge("classify", artefact, pictures, "--truth", table, "--json")
    rows = json.loads(done.stdout)["results"]
    assert {Path(row["image"]).name: row["truth"] for row in rows} == {
        "red.png": "t0",
        "green.png": "t1",
        "blue.png": "t1",
    }
    assert all(row["right"] is (row["best"]["id"] == row["truth"]) for row in rows)


def test_a_truth_that_lacks_an_image_is_a_usage_error(
    artefact: Path, pictures: Path, tmp_path: Path
) -> None:
    table = tmp_path / "truth.csv"
    table.write_text("red.png,t0\n")
    done = _kedge("classify", artefact, pictures, "--truth", table)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "none for 2" in done.stderr


def test_several_models_have_an_accuracy_each(artefacts: Path, class_folders: Path) -> None:
    both = artefacts / "tiny.tflite", artefacts / "tiny.onnx"
    lines = _kedge("classify", *both, class_folders).stdout.splitlines()
    assert "x the class is wrong" in lines
    assert [line[:12] for line in lines[-2:]] == ["1: accuracy ", "2: accuracy "]
    assert any("% x " in line for line in lines)


def test_the_csv_has_a_row_for_each_image(
    artefact: Path, class_folders: Path, tmp_path: Path
) -> None:
    path = tmp_path / "table.csv"
    done = _kedge("classify", artefact, class_folders, "--top", 2, "--csv", path)
    assert done.stderr == f"kedge: wrote {path}: 2 rows\n"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["right"] for row in rows] == ["false", "true"]
    assert [row["truth"] for row in rows] == ["t1", "t0"]
    for row in rows:
        assert row["label"] == row["class_1"] == "red"
        assert float(row["probability_1"]) >= float(row["probability_2"]) >= 0
        assert row["artefact"] == str(artefact)


def test_the_csv_on_stdout_replaces_the_list(artefact: Path, class_folders: Path) -> None:
    done = _kedge("classify", artefact, class_folders, "--top", 1, "--csv", "-")
    head, *rows = done.stdout.splitlines()
    assert head == "image,artefact,label,unknown,truth,right,class_1,id_1,probability_1"
    assert len(rows) == 2
    assert done.stderr == "kedge: accuracy 50.0 % (1 of 2 images), 95 % CI 9.5 to 90.5 %\n"


def test_a_name_with_commas_and_newlines_stays_one_cell(
    artefact: Path, pictures: Path, tmp_path: Path
) -> None:
    odd = tmp_path / 'a, "b"\nc.png'
    odd.write_bytes((pictures / "red.png").read_bytes())
    path = tmp_path / "table.csv"
    assert _kedge("classify", artefact, odd, "--csv", path).returncode == 0
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["image"] == str(odd)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--csv", "-", "--json"), "--csv - and --json: both print on stdout"),
        (("--csv", "none/x.csv"), "--csv"),
        (("--csv", "x.txt"), "--csv"),
    ],
)
def test_a_csv_that_can_not_be_is_a_usage_error(
    artefact: Path, pictures: Path, words: tuple[str, ...], message: str
) -> None:
    done = _kedge("classify", artefact, pictures, *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr
