"""`kedge watch` as a user meets it: pipes, Ctrl-C, mistakes."""

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from kedge_runtime.commands import stream
from kedge_runtime.streams import open_video, sources

pytest.importorskip("ai_edge_litert")

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parent.parent
DOCS = (ROOT / "docs/streams.md").read_text(encoding="utf-8")

# The command with a camera and a video that are red, pale and red again for ever. What hangs, hangs
# after its first frame.
ENDLESS = """
import itertools, signal, sys, threading
import numpy as np
from kedge_runtime.cli import main
from kedge_runtime.commands import stream
from kedge_runtime.streams import Frame, live

def endless(*_):
    for index in itertools.count():
        yield Frame(index, 0.0, np.full((8, 8, 3), (255, 0, 0), np.uint8))
        if {hangs}:
            threading.Event().wait()

live.open_camera = stream.open_video = endless
live.PATIENCE = 0.1
# A shell that starts things in the background has them ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a camera no time between its failures."""
    monkeypatch.setattr(sources, "PAUSE", 0)


@pytest.fixture
def artefact(artefacts: Path) -> Path:
    return artefacts / "tiny.tflite"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a video of 9 frames, ten a second: three each of red, pale red and blue."""
    path = tmp_path_factory.mktemp("video") / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for colour in ((255, 0, 0), (180, 90, 90), (0, 0, 255)):
        for _ in range(3):
            writer.write(np.full((48, 64, 3), colour[::-1], np.uint8))
    writer.release()
    return path


def test_json_has_one_object_a_line(kedge: Run, artefact: Path, video: Path) -> None:
    code, out, err = kedge("watch", artefact, "--video", video, "--json", "--top", 2)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [line["frame"] for line in lines] == list(range(9))
    assert [line["time"] for line in lines] == pytest.approx([i / 10 for i in range(9)])
    assert [line["label"] for line in lines] == ["red"] * 6 + ["blue"] * 3
    assert len(lines[0]["predictions"]) == 2
    assert err.startswith("kedge: 9 frames, 9 classified, 9 answers, 0 dropped, 0 unsure saved, ")
    assert err.endswith(" frames per second\n")


def test_a_line_has_the_keys_that_the_documentation_names(
    kedge: Run, artefact: Path, video: Path
) -> None:
    _, out, _ = kedge("watch", artefact, "--video", video, "--json", "--every", 9)
    (line,) = map(json.loads, out.splitlines())
    documented = (ROOT / "docs/json.md").read_text(encoding="utf-8")
    section = documented.partition("## watch")[2].partition("\n## ")[0]
    rows = [row for row in section.splitlines() if row.startswith('{"schema"')]
    example, _ = map(json.loads, rows)
    assert list(line) == list(example)
    assert list(line["best"]) == list(example["best"])
    assert (line["schema"], line["command"]) == (1, "watch")
    assert (line["artefacts"], line["source"]) == ([str(artefact)], str(video))


def test_words_name_the_moment(kedge: Run, artefact: Path, video: Path) -> None:
    arguments = ("--video", video, "--top", 1, "--debounce", "2/3", "--min-confidence", 0.8)
    code, out, err = kedge("watch", artefact, *arguments)
    assert code == 0
    rows = [row.split(" % ")[1].strip().split("  ") for row in out.splitlines()]
    assert [(row[0], row[-1].strip()) for row in rows] == [
        ("red", "0.10 s"),
        ("unknown (red?)", "0.40 s"),
        ("blue", "0.70 s"),
    ]
    assert err.startswith("kedge: 9 frames, 9 classified, 3 answers, ")


def test_motion_and_unsure_frames(kedge: Run, artefact: Path, video: Path, tmp_path: Path) -> None:
    gates = ("--motion", 5, "--save-unsure", tmp_path / "unsure", "--max-entropy", 0.5)
    code, out, err = kedge("watch", artefact, "--video", video, *gates, "--json")
    assert (code, [json.loads(row)["label"] for row in out.splitlines()]) == (
        0,
        ["red", None, "blue"],
    )
    assert err.startswith("kedge: 9 frames, 3 classified, 3 answers, 0 dropped, 1 unsure saved, ")
    (saved,) = (tmp_path / "unsure").iterdir()
    assert saved.name.endswith("Z-3.jpg")


def test_an_ensemble_watches_as_one(kedge: Run, artefacts: Path, video: Path) -> None:
    pytest.importorskip("onnxruntime")
    pair = (artefacts / "tiny.tflite", artefacts / "tiny.onnx")
    code, out, _ = kedge("watch", *pair, "--video", video, "--ensemble", "--json", "--every", 9)
    (line,) = map(json.loads, out.splitlines())
    assert (code, line["artefacts"], line["label"]) == (0, list(map(str, pair)), "red")
    code, out, err = kedge("watch", *pair, "--video", video)
    assert (code, out) == (2, "")
    assert err == "kedge: a stream takes one artefact, or several with --ensemble\n"


MISTAKES = [
    (["--video", "missing.mp4"], "missing.mp4: no such video file"),
    (["--video", "text.mp4"], "text.mp4: no video that OpenCV can read"),
    (["--camera", "97"], "camera 97: can't be opened; check that"),
    (["--camera", "97", "--video", "text.mp4"], "one stream at a time"),
    (["--camera", "97", "text.jpg"], "text.jpg: images or a stream"),
    (["--camera", "97", "--every", "2"], "--every: is for videos"),
    (["--camera", "97", "--sheet", "a.png"], "No such option"),
    ([], "no source given: name one with --camera or --video"),
    (["--camera", "picamera2"], "picamera2 isn't installed: sudo apt install python3-picamera2"),
    (["--video", "walk.avi", "--mqtt", "broker"], "--mqtt: expected mqtt://"),
    (["--video", "walk.avi", "--mqtt", ""], "--mqtt is empty: give a value"),
    (["--video", "walk.avi", "--webhook", ""], "--webhook is empty: give a value"),
    (["--video", "walk.avi", "--csv", ""], "--csv is empty: give a value"),
    (["--video", "walk.avi", "--csv", "."], "--csv: .: can't be written (is a directory)"),
    (["--video", "walk.avi", "--webhook", "ftp://host/"], "--webhook: expected http://"),
    (["--video", "walk.avi", "--csv", "text.jpg"], "text.jpg: has other columns"),
    (["--video", "walk.avi", "--debounce", "5/3"], "5/3: not possible; 3/5 means"),
    (["--video", "walk.avi", "--save-unsure", "u"], "--save-unsure needs --min-confidence"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_line(
    kedge: Run,
    artefact: Path,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("text.mp4", "text.jpg"):
        Path(name).write_text("words")
    Path("walk.avi").symlink_to(video)
    code, out, err = kedge("watch", artefact, *arguments)
    (line,) = err.splitlines()
    assert (code, out) == (2, "")
    assert line.startswith("kedge: ")
    assert message in line


def test_a_video_among_images_is_led_to_the_stream(kedge: Run, artefact: Path, video: Path) -> None:
    code, out, err = kedge("classify", artefact, video)
    assert (code, out, err.count("\n")) == (2, "", 1)
    command = err.strip().partition("; run kedge ")[2]
    assert kedge(*shlex.split(command))[0] == 0


def start(artefact: Path, *arguments: str, hangs: bool = False) -> "subprocess.Popen[str]":
    script = ENDLESS.format(hangs=hangs)
    command = [sys.executable, "-c", script, "watch", str(artefact), "--json", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


INTERRUPTED = [
    (["--camera", "0"], False, 0),
    (["--camera", "0"], True, 0),
    (["--camera", "0", "--debounce", "1/1"], False, 0),
    (["--video", "any.mp4", "--debounce", "1/1"], False, 130),
]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("arguments", "hangs", "code"), INTERRUPTED)
def test_a_signal_ends_a_camera_well_and_a_video_short(
    artefact: Path, arguments: list[str], hangs: bool, code: int, end: signal.Signals
) -> None:
    process = start(artefact, *arguments, hangs=hangs)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    process.send_signal(end)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, first["label"]) == (code, "red")
    assert all(json.loads(row)["label"] == "red" for row in out.splitlines())
    (summary,) = err.splitlines()
    assert summary.startswith("kedge: ")
    assert summary.endswith(" frames per second")


@pytest.mark.parametrize("source", ["--camera", "--video"])
def test_a_reader_that_leaves_ends_the_stream_without_a_word(artefact: Path, source: str) -> None:
    process = start(artefact, source, "0")
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["label"] == "red"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0
    process.stderr.close()


# What docs/streams.md shows, run


def test_the_python_examples_answer(
    artefact: Path,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mobilenet.int8.tflite").symlink_to(artefact)
    Path("walk.mp4").symlink_to(video)
    examples = [block.partition("```")[0] for block in DOCS.split("```python\n")[1:]]
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, "docs/streams.md", "exec"), {})
        assert "red" in capsys.readouterr().out


def test_the_commands_shown_are_commands(
    kedge: Run, artefact: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # There is no camera here; the video takes its place, and ends the stream.
    monkeypatch.setattr(stream, "open_live", lambda camera: open_video("walk.mp4"))
    Path("mobilenet.int8.tflite").symlink_to(artefact)
    Path("walk.mp4").symlink_to(video)
    shown = [line for line in DOCS.splitlines() if line.startswith("kedge watch ")]
    assert len(shown) >= 4
    for line in shown:
        words = shlex.split(line.partition(" #")[0])
        if "--mqtt" in words or "--webhook" in words:
            continue  # tests/test_mqtt.py, tests/test_webhook.py
        code, out, err = kedge(*words[1:])
        assert code == 0, err
        assert " frames per second\n" in err
        assert out or "--debounce" in words
