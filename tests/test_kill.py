"""kill -9 while a drift is recorded: the small version of benchmarks/kill.py, which takes all."""

import random
from pathlib import Path

import kill


def test_a_killed_drift_leaves_nothing_wrong_and_the_next_one_is_right(
    artefacts: Path, tmp_path: Path
) -> None:
    desk = kill.made(tmp_path / "desk", artefacts / "tiny.onnx")
    found = kill.killed(desk, kill.COMMANDS["drift"], 4, 2, random.Random(14))
    assert found.wrong == ()
    assert (found.kills, found.reruns) == (4, 2)


def test_what_is_half_written_or_left_behind_would_be_found(tmp_path: Path) -> None:
    command = kill.COMMANDS["convert"]
    for name in ("out", "temporary"):
        (tmp_path / name).mkdir()
    (tmp_path / "out" / "demo.tflite").write_bytes(b"whole")
    expected = kill.contents(tmp_path, command)
    assert kill.unlike(tmp_path, command, expected) == []
    (tmp_path / "out" / "demo.tflite").write_bytes(b"who")
    (tmp_path / "out" / ".kedge-1-x").write_bytes(b"")
    (tmp_path / "temporary" / "kedge-1").mkdir()
    assert kill.unlike(tmp_path, command, expected) == ["out/demo.tflite isn't what it is called"]
    assert kill.left(tmp_path) == {"out/.kedge-1-x", "temporary/kedge-1"}
    (tmp_path / "out" / "demo.tflite").unlink()
    assert kill.unlike(tmp_path, command, expected) == ["out/demo.tflite is missing"]
