"""The cache of `kedge build`: keys by content, damage found, locks that exclude, kills survived."""

import hashlib
import json
import os
import pickle
import random
import signal
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kedge_convert.matrix import keys
from kedge_convert.matrix.cache import FOLDERS, KEY, MAX_ENTRY, Cache, Entry, default_folder
from kedge_convert.matrix.cells import Cell, groups
from kedge_convert.matrix.config import BuildConfig, BuildGates, ModelConfig, Options, Variant
from kedge_convert.quantise.effort import FAST
from kedge_runtime.errors import UsageError
from kedge_runtime.files import host
from kedge_runtime.pool import Pool, executor


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(tmp_path / "cache")
    made.open()
    return made


def cell(model: ModelConfig, **options: object) -> Cell:
    chosen = Variant("", replace(Options(), **options))  # type: ignore[arg-type]
    return groups(BuildConfig((model,), options=(chosen,)))[0].cells[0]


@pytest.fixture
def model(tmp_path: Path) -> ModelConfig:
    for name in ("m.keras", "labels.txt", "photos/a.jpg", "photos/b/c.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"the content of {name}")
    return ModelConfig(
        "m",
        source=str(tmp_path / "m.keras"),
        labels=str(tmp_path / "labels.txt"),
        calibrate=str(tmp_path / "photos"),
        images=str(tmp_path / "photos"),
        targets=("tflite:int8",),
    )


def fresh(of: Cell) -> str:
    """Return the key as a new process would."""
    keys.content_of.cache_clear()
    return keys.artefact_key(of)


@pytest.mark.parametrize("name", ["m.keras", "labels.txt", "photos/a.jpg", "photos/b/c.jpg"])
def test_a_changed_file_is_another_artefact(tmp_path: Path, model: ModelConfig, name: str) -> None:
    before = fresh(cell(model))
    (tmp_path / name).write_text("another content")
    assert fresh(cell(model)) != before


def test_the_place_of_the_images_has_no_part(tmp_path: Path, model: ModelConfig) -> None:
    before = fresh(cell(model))
    (tmp_path / "photos").rename(tmp_path / "moved")
    moved = replace(model, calibrate=str(tmp_path / "moved"), images=str(tmp_path / "moved"))
    assert fresh(cell(moved)) == before


def test_a_relative_path_is_of_its_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for name in ("one", "two"):
        (tmp_path / name / "photos").mkdir(parents=True)
        (tmp_path / name / "photos" / "a.jpg").write_text(name)
        monkeypatch.chdir(tmp_path / name)
        found.add(keys.content(Path("photos")))
        assert keys.content(Path("photos")) == keys.content(Path("photos").absolute())
    assert len(found) == 2


def test_the_weights_beside_an_architecture_have_a_part(tmp_path: Path, model: ModelConfig) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "model.json").write_text('{"class_name": "Sequential", "config": {}}')
    of = replace(model, source=str(tmp_path / "net" / "model.json"))
    weights = tmp_path / "net" / "model.weights.h5"
    weights.write_bytes(b"\x89HDF\r\n\x1a\n one")
    before = fresh(cell(of))
    weights.write_bytes(b"\x89HDF\r\n\x1a\n other")
    assert fresh(cell(of)) != before


def test_insisting_on_an_input_has_a_part(model: ModelConfig) -> None:
    assert fresh(cell(replace(model, force_input=True))) != fresh(cell(model))


def test_a_image_behind_a_link_is_one_of_them(tmp_path: Path, model: ModelConfig) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "elsewhere")
    before = fresh(cell(model))
    (tmp_path / "elsewhere" / "d.jpg").write_text("one more")
    assert fresh(cell(model)) != before


def test_what_changes_no_byte_changes_no_key(tmp_path: Path, model: ModelConfig) -> None:
    before = fresh(cell(model))
    os.utime(tmp_path / "m.keras", (1, 1))
    os.utime(tmp_path / "photos/a.jpg", (1, 1))
    assert fresh(cell(model)) == before
    renamed = replace(model, name="other", images=None, attribute=3)
    assert fresh(cell(renamed)) == before


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"effort": FAST}, {"check_count": 9}, {"preprocess": "load_img"}],
)
def test_options_have_a_part(model: ModelConfig, change: dict[str, object]) -> None:
    assert fresh(cell(model, **change)) != fresh(cell(model))


@pytest.mark.parametrize("part", ["code", "tools"])
def test_kedge_and_its_tools_have_a_part(
    model: ModelConfig, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fresh(cell(model))
    monkeypatch.setattr(keys, part, lambda: "another")
    assert fresh(cell(model)) != before


def test_a_devices_compiler_has_a_part(
    tmp_path: Path, model: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for version in ("", "15", "16"):
        if version:
            command = tmp_path / "edgetpu_compiler"
            command.write_text(f"#!/bin/sh\necho Edge TPU Compiler version {version}\n")
            command.chmod(0o755)
        keys.compiler.cache_clear()
        coral = replace(model, device="coral", gates=BuildGates(device="coral"))
        found.append(
            (fresh(cell(coral)), keys.fit_key(cell(coral), "artefact"), fresh(cell(model)))
        )
    keys.compiler.cache_clear()
    assert [len(set(each)) for each in zip(*found, strict=True)] == [3, 3, 1]


def test_the_images_have_a_part_in_the_drift(tmp_path: Path, model: ModelConfig) -> None:
    before = keys.drift_key(cell(model), "artefact")
    assert keys.drift_key(cell(model), "another") != before
    assert keys.drift_key(cell(replace(model, truth="folders")), "artefact") != before
    (tmp_path / "photos/a.jpg").write_text("another content")
    keys.content_of.cache_clear()
    assert keys.drift_key(cell(model), "artefact") != before


def test_a_file_that_is_not_there_is_a_mistake(model: ModelConfig) -> None:
    with pytest.raises(UsageError, match=r"none\.keras: no such file"):
        keys.artefact_key(cell(replace(model, source="none.keras")))


def test_what_was_put_is_got(cache: Cache) -> None:
    assert cache.get("key") is None
    put = cache.put("key", {"size": (1, 2.5), "why": None}, {"file": b"content"})
    assert put.facts == {"size": [1, 2.5], "why": None}
    assert cache.get("key") == put
    assert cache.blob(put.files["file"]).read_bytes() == b"content"
    assert Cache(cache.folder).get("key") == put


Damage = Callable[[Cache, Entry], object]
LOST = "one of its files is missing or damaged"
ANY = ""  # in Python's words
DAMAGE: dict[str, tuple[Damage, str]] = {
    "blob changed": (lambda cache, entry: _blob(cache, entry).write_bytes(b"conten!"), LOST),
    "blob cut": (lambda cache, entry: _blob(cache, entry).write_bytes(b"con"), LOST),
    "blob gone": (lambda cache, entry: _blob(cache, entry).unlink(), LOST),
    "entry cut": (lambda cache, _: _edit(cache, lambda text: text[:40]), ANY),
    "entry changed": (
        lambda cache, _: _edit(cache, lambda text: text.replace("good", "evil")),
        "damaged",
    ),
    "entry empty": (lambda cache, _: _edit(cache, lambda _: ""), ANY),
    "entry of another kind": (lambda cache, _: _edit(cache, lambda _: "[1, 2]"), ANY),
    "entry that is deep": (lambda cache, _: _edit(cache, lambda _: "[" * 100_000), ANY),
    "entry that is no UTF-8": (lambda cache, _: _path(cache).write_bytes(b"\xff{}"), "codec"),
    "entry that is huge": (
        lambda cache, _: _edit(cache, lambda text: text + " " * MAX_ENTRY),
        f"has more than {MAX_ENTRY} bytes",
    ),
    "a number of 5000 digits": (lambda cache, _: _edit(cache, lambda _: "9" * 5000), ANY),
    "entry of another key": (lambda cache, _: _path(cache).write_bytes(_other(cache)), "damaged"),
    "entry that is a folder": (lambda cache, _: _make_folder(_path(cache)), "Is a directory"),
    "facts that are a list": (
        lambda cache, _: _forge(cache, {"facts": [], "files": {}}),
        "its facts are not a table",
    ),
    "files that are a list": (
        lambda cache, _: _forge(cache, {"facts": {}, "files": [1]}),
        ANY,
    ),
    "a file that is a number": (
        lambda cache, _: _forge(cache, {"facts": {}, "files": {"a": 1}}),
        ANY,
    ),
    "a file that is a device": (
        lambda cache, _: _forge(cache, {"facts": {}, "files": {"a": UP + "dev/zero"}}),
        LOST,
    ),
    "a key more": (lambda cache, _: _forge(cache, {"facts": {}, "files": {}, "more": 1}), "more"),
    "no entry": (lambda cache, _: _forge(cache, None), ANY),
}
UP = "../" * 10


def _blob(cache: Cache, entry: Entry) -> Path:
    return cache.blob(entry.files["file"])


def _path(cache: Cache) -> Path:
    return cache.folder / "entries" / "key.json"


def _edit(cache: Cache, change: Callable[[str], str]) -> None:
    _path(cache).write_text(change(_path(cache).read_text()))


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _other(cache: Cache) -> bytes:
    """Return an entry that is right, but under another key."""
    cache.put("other", {"word": "evil"}, {"file": b"content"})
    return (cache.folder / "entries" / "other.json").read_bytes()


def _forge(cache: Cache, entry: object) -> None:
    """Write what somebody who knows kedge can write: any entry with its right digest."""
    proof = keys.digest({"key": "key", "entry": entry})
    _path(cache).write_text(json.dumps({"entry": entry, "digest": proof}))


def test_the_format_of_an_entry_is_what_later_runs_read(cache: Cache) -> None:
    """The forged ones below are refused for what is wrong with them, not for how they are made."""
    _forge(cache, {"facts": {"word": "good"}, "files": {}})
    assert cache.get("key") == Entry({"word": "good"})


def test_an_entry_is_read_up_to_a_bound(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = cache.put("key", {"word": "good"})
    bound = _path(cache).stat().st_size + 10
    monkeypatch.setattr("kedge_convert.matrix.cache.MAX_ENTRY", bound)
    _edit(cache, lambda text: text + " " * 10)
    assert cache.get("key") == entry
    _edit(cache, lambda text: text + " ")
    assert cache.get("key") is None
    os.truncate(_path(cache), 32 << 20)
    assert _peak(lambda: cache.get("key")) < 4 << 20


def _peak(call: Callable[[], object]) -> int:
    """Return how many bytes Python allocates at once during a call, at most."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_result_is_missing_and_made_again(
    cache: Cache, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    entry = cache.put("key", {"word": "good"}, {"file": b"content"})
    spoil, reason = DAMAGE[damage]
    spoil(cache, entry)
    assert cache.get("key") is None
    assert cache.get("key") is None
    (line,) = capfd.readouterr().err.splitlines()
    place = f"kedge: cache: {_path(cache)}: "  # which has the word `damaged` in it
    assert line.startswith(place)
    assert reason in line.removeprefix(place)
    assert line.endswith("; building it again")
    if _path(cache).is_dir():
        _path(cache).rmdir()
    assert cache.put("key", {"word": "good"}, {"file": b"content"}) == entry
    assert cache.get("key") == entry


def test_what_was_never_made_is_missing_without_a_word(
    cache: Cache, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cache.get("key") is None
    assert capfd.readouterr().err == ""


SECRETS = ("0123456789abcdef" * 2, "fedcba9876543210" * 2)


@pytest.mark.parametrize(
    ("made", "read", "reason"),
    [
        ("", SECRETS[0], "was made without a key, and KEDGE_CACHE_KEY is set"),
        (SECRETS[0], "", "was made with a key, and KEDGE_CACHE_KEY isn't set"),
        (SECRETS[0], SECRETS[1], "was made with another KEDGE_CACHE_KEY, or changed"),
    ],
)
def test_a_result_without_the_right_hmac_is_missing(
    cache: Cache,
    made: str,
    read: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(KEY, made)
    entry = cache.put("key", {"word": "good"})
    assert cache.get("key") == entry
    monkeypatch.setenv(KEY, read)
    assert cache.get("key") is None
    assert capfd.readouterr().err == f"kedge: cache: {_path(cache)}: {reason}; building it again\n"
    assert cache.put("key", {"word": "good"}) == cache.get("key")


def test_with_a_key_a_digest_alone_proves_nothing(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, SECRETS[0])
    entry = cache.put("key", {"word": "good"})
    stored = json.loads(_path(cache).read_text())
    stored["entry"]["facts"]["word"] = "evil"
    _path(cache).write_text(json.dumps(stored))
    assert cache.get("key") is None
    _forge(cache, {"facts": {"word": "evil"}, "files": {}})
    assert cache.get("key") is None
    cache.put("key", {"word": "good"})
    assert cache.get("key") == entry


@pytest.mark.parametrize("length", [1, 31])
def test_a_short_key_is_refused(cache: Cache, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "k" * length)
    message = rf"has {length} characters, at least 32 .*openssl rand -hex 32"
    with pytest.raises(UsageError, match=message):
        cache.open()
    monkeypatch.setenv(KEY, "k" * 32)
    cache.open()


def test_the_key_is_not_sent_to_workers(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRETS[0])
    cache.open()
    assert SECRETS[0].encode() not in pickle.dumps(cache)


def test_a_cache_is_its_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "it's new")
    cache.open()
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    for mode in (0o755, 0o701):
        cache.folder.chmod(mode)
        cache.open()
        assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    for mode in (0o777, 0o770, 0o702):
        cache.folder.chmod(mode)
        with pytest.raises(UsageError, match=f"users can write to it .mode {mode:o}.; ") as refused:
            cache.open()
        monkeypatch.setenv(KEY, SECRETS[0])
        cache.open()
        monkeypatch.delenv(KEY)
    remedy = str(refused.value).split("`")[1]
    subprocess.run(["sh", "-c", remedy], check=True)
    cache.open()


def test_a_shared_cache_is_made_its_users_alone_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, SECRETS[0])
    cache = Cache(tmp_path / "above" / "cache")
    before = os.umask(0)
    try:
        cache.open()
    finally:
        os.umask(before)
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert sorted(path.name for path in cache.folder.iterdir()) == sorted(FOLDERS)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_belongs_to_another_user_is_not_believed(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cache.put("key", {"word": "good"})
    os.chown(_path(cache), 12345, 12345)
    assert cache.get("key") is None
    assert "belongs to another user; building it again" in capfd.readouterr().err
    os.chown(cache.folder, 12345, 12345)
    with pytest.raises(UsageError, match="belongs to another user; choose a folder of your own"):
        cache.open()
    monkeypatch.setenv(KEY, SECRETS[0])
    cache.open()


def test_a_file_is_proved_when_it_is_taken(cache: Cache, tmp_path: Path) -> None:
    sha256 = cache.put("key", {}, {"file": b"content"}).files["file"]
    cache.take(sha256, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == cache.content(sha256) == b"content"
    cache.blob(sha256).write_bytes(b"conten!")
    for way in (cache.content, lambda sha256: cache.take(sha256, tmp_path / "copy")):
        with pytest.raises(UsageError, match="changed since it was checked; build again"):
            way(sha256)
    cache.blob(sha256).unlink()
    for way in (cache.content, lambda sha256: cache.take(sha256, tmp_path / "copy")):
        with pytest.raises(UsageError, match="no such file or directory; build again"):
            way(sha256)


def test_a_large_file_is_taken_in_pieces(cache: Cache, tmp_path: Path) -> None:
    content = os.urandom(1 << 10) * (16 << 10)
    sha256 = cache.put("key", {}, {"file": content}).files["file"]
    assert _peak(lambda: cache.take(sha256, tmp_path / "copy")) < 4 << 20
    assert (tmp_path / "copy").read_bytes() == content


def test_unfinished_work_lies_in_the_cache_and_is_removed(cache: Cache) -> None:
    with cache.workshop() as folder:
        (folder / "half").write_text("x")
        assert folder.parent == cache.folder / "work"
    assert list((cache.folder / "work").iterdir()) == []


def test_a_link_planted_as_a_lock_is_not_followed(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("the user's")
    (cache.folder / "locks" / "key").symlink_to(tmp_path / "victim")
    with pytest.raises(UsageError, match=r"symbolic links.*remove it"), cache.lock("key"):
        pass
    assert (tmp_path / "victim").read_text() == "the user's"


def test_a_lock_is_waited_for(cache: Cache) -> None:
    order: list[str] = []
    begun = threading.Event()

    def second() -> None:
        with cache.lock("key", begun.set):
            order.append("second")

    with cache.lock("key"), cache.lock("another"):
        thread = threading.Thread(target=second)
        thread.start()
        begun.wait()
        thread.join(0.2)  # were it not excluded, it would be through
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_work_is_done_wherever_it_is(tmp_path: Path, jobs: int) -> None:
    with executor(Pool(jobs)) as workers:
        futures = [workers.submit(pow, base, 2) for base in range(3)]
        assert [future.result() for future in futures] == [0, 1, 4]
        with pytest.raises(UsageError, match="no such file"):
            workers.submit(keys.content, tmp_path / "none").result()


def test_what_a_dead_process_left_is_swept(cache: Cache) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, mine = (f"kedge-{process}-{host()}-0123abcd" for process in (ended.pid, os.getpid()))
    places = [cache.folder / "work" / left, cache.folder / "work" / mine]
    for folder in places:
        folder.mkdir()
        (folder / "file").write_text("x")
    hidden = cache.folder / "blobs" / f".{left}-x"
    hidden.write_text("x")
    cache.open()
    assert [path.exists() for path in (*places, hidden)] == [False, True, False]


def test_a_folder_that_can_not_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match=r"--cache: .*/file: file exists; choose another"):
        Cache(tmp_path / "file").open()
    with pytest.raises(UsageError, match=r"/file/below: not a directory; choose another folder"):
        Cache(tmp_path / "file" / "below").open()


def test_the_cache_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/kedge")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache" / "kedge"


WRITER = """
import sys
from pathlib import Path
from kedge_convert.matrix.cache import Cache
from kedge_convert.matrix.run import publish

cache, out = Cache(Path(sys.argv[1])), Path(sys.argv[2])
cache.open()
print("ready", flush=True)
turn = 0
while True:
    turn += 1
    content = bytes([turn % 251]) * 300_000
    entry = cache.put(f"key{turn % 5}", {"fill": turn % 251}, {"artefact": content})
    verdict = ("PASS", "FAIL", "INCONCLUSIVE")[turn % 3]
    publish(out / "a.tflite", content, verdict)
"""
KILLS = 6


def test_a_kill_at_any_moment_leaves_nothing_half_done(cache: Cache, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    moments = random.Random(4)
    found = 0
    for _ in range(KILLS):
        command = [sys.executable, "-c", WRITER, str(cache.folder), str(out)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE)
        with writer:
            assert writer.stdout
            assert writer.stdout.readline() == b"ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(moments.uniform(0.02, 0.3))
            os.kill(writer.pid, signal.SIGKILL)
        found += _check(cache, out)
    assert found


def _check(cache: Cache, out: Path) -> int:
    """Hold everything under a final name against its digest; return how many entries there are."""
    for blob in (cache.folder / "blobs").glob("[!.]*"):
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    names = [path for path in out.iterdir() if not path.name.startswith(".")]
    assert len(names) <= 1
    assert all(len(path.read_bytes()) == 300_000 for path in names)
    stored = list((cache.folder / "entries").glob("[!.]*"))
    for path in stored:
        entry = cache.get(path.stem)
        assert entry
        fill = bytes([entry.facts["fill"]]) * 300_000
        assert cache.blob(entry.files["artefact"]).read_bytes() == fill
    return len(stored)


def test_entries_are_readable_json(cache: Cache) -> None:
    cache.put("key", {"a": 1})
    assert json.loads((cache.folder / "entries" / "key.json").read_text())["entry"]["files"] == {}
