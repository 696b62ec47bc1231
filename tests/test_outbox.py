"""The outbox: what was put in stays until it is taken, whatever happens to process and disk."""

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from full_disk import fill, small_file_system
from kedge_runtime import UsageError
from kedge_runtime.watch.outbox import Outbox


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "state" / "mqtt.queue", limit=5)
    yield box
    box.close()


def bodies(box: Outbox) -> list[str]:
    return [posting.body for posting in box.after(0, 100)]


def test_postings_keep_their_order_until_they_are_removed(box: Outbox) -> None:
    for name in "abc":
        box.add("t", name)
    assert (bodies(box), len(box)) == (["a", "b", "c"], 3)
    first, second, _ = box.after(0, 100)
    assert [posting.body for posting in box.after(first.number, 1)] == ["b"]
    box.remove({first.number, second.number})
    assert (bodies(box), len(box), box.dropped()) == (["c"], 1, None)


def test_postings_outlive_the_process(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "q")
    box.add("t", "a")
    box.close()
    again = Outbox(tmp_path / "q")
    again.add("t", "b")
    assert bodies(again) == ["a", "b"]
    assert len({posting.number for posting in again.after(0, 9)}) == 2
    again.close()


KILLED = """
import sys
from pathlib import Path
from kedge_runtime.watch.outbox import Outbox
box = Outbox(Path(sys.argv[1]))
for number in range(100_000):
    box.add("t", str(number))
    print(number, flush=True)
"""


def test_what_was_added_outlives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "q"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(200):
        process.stdout.readline()
    process.kill()
    told = [line for line in process.stdout.read().split("\n") if line]
    process.wait()
    process.stdout.close()
    box = Outbox(path, 1 << 20)
    kept = [int(posting.body) for posting in box.after(0, 1 << 20)]
    assert kept == list(range(len(kept)))
    assert len(kept) >= 200 + len(told) - 1  # the last line may be half a number
    box.close()


def test_the_oldest_make_room_and_are_counted(tmp_path: Path) -> None:
    box, before = Outbox(tmp_path / "q", limit=3), time.time()
    for name in "abcdefg":
        box.add("t", name)
    assert (bodies(box), len(box)) == (["e", "f", "g"], 3)
    box.close()
    box = Outbox(tmp_path / "q", limit=3)  # what was dropped is known after a restart, too
    assert box.dropped() is None  # there is no room to tell it
    box.remove({box.after(0, 1)[0].number})
    dropped = box.dropped()
    assert dropped is not None and dropped.count == 4
    assert before <= dropped.first <= dropped.last <= time.time()
    box.forget(dropped)
    assert box.dropped() is None
    box.close()


def test_a_full_disk_keeps_messages_in_memory(
    box: Outbox, capsys: pytest.CaptureFixture[str]
) -> None:
    box.add("t", "a")
    (pages,) = box._base.execute("PRAGMA page_count").fetchone()
    box._base.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own full disk
    for name in ("x" * 5000, "y" * 5000):
        box.add("t", name)
    assert ([body[0] for body in bodies(box)], len(box)) == (["a", "x", "y"], 3)
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "database or disk is full; messages wait in memory" in line
    first, second, _ = box.after(0, 9)
    box.remove({first.number, second.number})
    assert ([body[0] for body in bodies(box)], len(box)) == (["y"], 1)
    for _ in range(9):
        box.add("t", "z" * 5000)
    assert len(box) == 5
    box._base.execute("PRAGMA max_page_count = 1000000")
    box.add("t", "w")
    (count,) = box._base.execute("SELECT count(*) FROM posting").fetchone()
    assert count == len(box) == 5
    assert bodies(box)[-1] == "w"
    box.remove({box.after(0, 1)[0].number})
    dropped = box.dropped()
    assert dropped is not None and dropped.count == 6


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_file_system(tmp_path / "small") as folder:
        yield folder


def test_a_disk_that_is_full_and_empty_again(small_disk: Path) -> None:
    path = small_disk / "q"
    box = Outbox(path)
    for index in range(50):
        box.add("t", f"{index} {'a' * 500}")
    filler = fill(small_disk)
    for index in range(50, 900):
        box.add("t", f"{index} {'a' * 500}")
    filler.unlink()
    box.remove({posting.number for posting in box.after(0, 850)})
    box.add("t", "last")
    assert [body.split()[0] for body in bodies(box)] == [*map(str, range(850, 900)), "last"]
    box.close()
    box = Outbox(path)
    assert len(box) == 51
    box.close()


def test_a_queue_that_has_filled_its_disk_by_itself_is_delivered(small_disk: Path) -> None:
    path, count = small_disk / "q", 1500
    box = Outbox(path)
    filler = fill(small_disk)
    for index in range(count - 1):
        box.add("t", f"{index} {'a' * 500}")
    filler.unlink()
    # All of them in one write: SQLite's log fills the disk, and nothing can be removed any more.
    box.add("t", f"{count - 1} {'a' * 500}")
    assert shutil.disk_usage(small_disk).free < 200_000
    seen = list[str]()
    while taken := box.after(0, 20):
        seen += [posting.body.split()[0] for posting in taken]
        box.remove({posting.number for posting in taken})
    assert seen == [*map(str, range(count))]
    assert len(box) == 0
    box.add("t", "new")
    box.close()
    assert shutil.disk_usage(small_disk).free > 200_000
    box = Outbox(path)
    assert bodies(box) == ["new"]
    box.close()


def test_a_start_on_a_full_disk_waits_in_memory(
    small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(small_disk)
    box = Outbox(small_disk / "q")
    box.add("t", "a")
    assert bodies(box) == ["a"]
    assert "until the next start messages wait in memory alone" in capsys.readouterr().err
    box.close()


def test_a_kill_and_a_full_disk_keep_what_was_there(small_disk: Path) -> None:
    path = small_disk / "q"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(300):
        process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    filler = fill(small_disk)
    box = Outbox(path)
    box.add("t", "new")
    box.close()
    filler.unlink()
    box = Outbox(path, 1 << 20)
    assert [posting.body for posting in box.after(0, 300)] == [*map(str, range(300))]
    box.close()


def test_two_processes_can_not_share_it(box: Outbox) -> None:
    with pytest.raises(UsageError, match=r"mqtt\.queue: can't keep messages there.*--state"):
        Outbox(box.path)


@pytest.mark.parametrize("content", [b"words" * 2000, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_file_is_set_aside(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "q"
    path.write_bytes(content)
    box = Outbox(path)
    box.add("t", "a")
    assert bodies(box) == ["a"]
    assert path.with_name("q.damaged").read_bytes() == content
    assert "damaged" in capsys.readouterr().err
    box.close()


def test_it_stays_small(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "q")
    for _ in range(3000):
        box.add("t", "a" * 500)
        box.remove({posting.number for posting in box.after(0, 9)})
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 8 << 20
    box.close()
    assert sqlite3.connect(tmp_path / "q").execute("SELECT count(*) FROM posting").fetchone() == (
        0,
    )
