"""Temporary files: nobody's links are followed, and what a killed process left is removed."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kedge_runtime import files
from kedge_runtime.errors import UsageError
from kedge_runtime.files import OLD, host, staged, sweep, synced, temporary_folder, write_whole

ROOT_NEEDED = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture
def dead() -> int:
    """Return the id of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def left(folder: Path, process: int, machine: str = "", *, age: float = 0.0) -> list[Path]:
    """Leave a file and a folder as a process does that is killed."""
    tail = f"kedge-{process}-{machine or host()}-0123abcd"
    file, room = folder / f".{tail}-a.tflite", folder / tail
    file.write_text("half")
    room.mkdir()
    (room / "weights").write_text("half")
    for path in (file, room):
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    return [file, room]


def there(paths: list[Path]) -> list[bool]:
    return [path.exists() for path in paths]


def test_what_a_dead_process_left_is_removed(tmp_path: Path, dead: int) -> None:
    gone, kept = left(tmp_path, dead), left(tmp_path, os.getpid(), age=2 * OLD)
    sweep(tmp_path)
    assert there(gone) == [False, False]
    assert there(kept) == [True, True]


def test_of_another_machine_only_what_is_old_is_removed(tmp_path: Path, dead: int) -> None:
    new, old = left(tmp_path, dead, "0" * 8), left(tmp_path, dead, "1" * 8, age=OLD + 60)
    sweep(tmp_path)
    assert there(new) == [True, True]
    assert there(old) == [False, False]


def test_other_names_are_left_alone(tmp_path: Path, dead: int) -> None:
    names = [
        "kedge-stuff",
        f"kedge-{dead}",
        ".kedge-12-a.tflite",
        f"x.kedge-{dead}-{host()}-0a1b2c3d",
    ]
    for name in names:
        (tmp_path / name).mkdir()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@ROOT_NEEDED
def test_another_users_files_are_left_alone(tmp_path: Path, dead: int) -> None:
    others = left(tmp_path, dead, age=2 * OLD)
    for path in others:
        os.chown(path, 12345, 12345)
    sweep(tmp_path)
    assert there(others) == [True, True]


def test_a_link_is_not_followed_when_it_is_swept(tmp_path: Path, dead: int) -> None:
    room = left(tmp_path, dead)[1]
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "file").write_text("the user's")
    (room / "link").symlink_to(tmp_path / "users")
    (tmp_path / f"kedge-{dead}-{host()}-76543210").symlink_to(tmp_path / "users")
    sweep(tmp_path)
    assert not room.exists()
    assert (tmp_path / "users" / "file").read_text() == "the user's"


def test_a_folder_that_is_not_there_has_nothing_to_sweep(tmp_path: Path) -> None:
    sweep(tmp_path / "none")


def test_writing_sweeps_beside_the_file(tmp_path: Path, dead: int) -> None:
    gone = left(tmp_path, dead)
    write_whole(tmp_path / "report.json", b"{}")
    assert there(gone) == [False, False]
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_temporary_folder_sweeps_beside_itself(tmp_path: Path, dead: int) -> None:
    gone = left(tmp_path, dead)
    with temporary_folder(tmp_path) as folder:
        assert there(gone) == [False, False]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert files.is_ours(folder.name)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
from pathlib import Path
from kedge_runtime.files import staged, synced, temporary_folder
with temporary_folder() as room, staged(Path(sys.argv[1])) as path, synced(path) as file:
    (room / "weights").write_text("half")
    file.write(b"half")
    file.flush()
    print("ready", flush=True)
    time.sleep(60)
"""


def test_kill_9_leaves_what_the_next_run_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms, out = tmp_path / "rooms", tmp_path / "out"
    for folder in (rooms, out):
        folder.mkdir()
    command = [sys.executable, "-c", KILLED, str(out / "a.tflite")]
    environment = {**os.environ, "TMPDIR": str(rooms)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as killed:
        assert killed.stdout
        assert killed.stdout.readline() == b"ready\n"
        killed.send_signal(signal.SIGKILL)
    assert (len(list(rooms.iterdir())), len(list(out.iterdir()))) == (1, 1)
    monkeypatch.setattr(tempfile, "tempdir", str(rooms))
    with temporary_folder(), staged(out / "a.tflite"):
        assert len(list(rooms.iterdir())) == 1
        assert list(out.iterdir()) == []
    assert list(rooms.iterdir()) == []


def test_a_link_planted_at_a_temporary_name_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("the user's")
    with staged(tmp_path / "a.tflite") as temporary:
        temporary.symlink_to(victim)
        with synced(temporary) as file:
            file.write(b"content")
        assert not temporary.is_symlink()
        assert temporary.read_bytes() == b"content"
    assert victim.read_text() == "the user's"


def test_a_link_planted_in_between_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the removal of what has the name and the opening, as a race would."""
    victim = tmp_path / "victim"
    victim.write_text("the user's")
    monkeypatch.setattr(Path, "unlink", lambda path, **_: path.symlink_to(victim))
    with pytest.raises(FileExistsError), synced(tmp_path / "a.tflite"):
        pass
    assert victim.read_text() == "the user's"


def test_temporary_names_can_not_be_foretold(tmp_path: Path) -> None:
    with staged(tmp_path / "a") as one, staged(tmp_path / "a") as other:
        assert one != other


LIMITED = """
import resource, sys
from kedge_runtime.errors import UsageError
from kedge_runtime.files import temporary_folder
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with temporary_folder() as folder:
        (folder / "weights").write_bytes(bytes(5000))
except UsageError as error:
    print(error)
"""


def test_no_room_in_a_temporary_folder_is_told(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", LIMITED]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    reason = "can't be written (file too large); set TMPDIR to one with room"
    assert ran.stdout == f"temporary folder {tmp_path}: {reason}\n"
    assert list(tmp_path.iterdir()) == []


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), temporary_folder(tmp_path) as folder:
        (folder / "none").read_text()
    with (
        pytest.raises(UsageError, match=r"no such file.*make room"),
        temporary_folder(tmp_path / "no"),
    ):
        pass
