"""Journals: what is noted is believed as far as it proves itself, and made again from there on."""

import base64
import fcntl
import hashlib
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import drift_references
from conftest import Run
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.drift import recording
from kedge_runtime.drift.codecs import AnswersCodec, PartCodec, shards_of
from kedge_runtime.drift.journal import ImageFolder, Journal, beside
from kedge_runtime.drift.measure import ROW, Part, Task, measure, measure_all, merge
from kedge_runtime.drift.recording import Recorder
from kedge_runtime.drift.reference import Reference, ReferenceFacts
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import EngineError, UsageError
from kedge_runtime.progress import Bar

COUNT = 80  # and one that is broken: three shards
WORK = "w" * 64


@dataclass(frozen=True)
class Plain:
    """A codec that keeps numbers."""

    def write(self, kept: int) -> dict[str, Any]:
        return {"n": kept}

    def read(self, _: int, entry: Any) -> int:
        return int(entry["n"])


def kept(place: Path, work: str = WORK) -> list[tuple[int, int]]:
    with Journal(place, work, Plain()) as journal:
        return list(journal.entries())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a journal of three shards."""
    path = tmp_path / "a.journal"
    with Journal(path, WORK, Plain()) as journal:
        for shard in range(3):
            journal.add(shard, 10 * shard)
    return path


def test_what_was_noted_is_there(place: Path) -> None:
    assert kept(place) == [(0, 0), (1, 10), (2, 20)]


def test_other_work_begins_anew(place: Path) -> None:
    assert kept(place, "other") == []
    assert kept(place) == []


def test_a_line_of_other_work_is_not_believed(place: Path, tmp_path: Path) -> None:
    other = tmp_path / "b.journal"
    with Journal(other, "other", Plain()) as journal:
        journal.add(3, 99)
    place.write_bytes(place.read_bytes() + other.read_bytes().splitlines(keepends=True)[1])
    assert kept(place) == [(0, 0), (1, 10), (2, 20)]


def test_a_removed_journal_is_gone(place: Path) -> None:
    with Journal(place, WORK, Plain()) as journal:
        journal.remove()
    assert not place.exists()


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_torn_line_is_cut_off(place: Path, cut: int) -> None:
    """One byte is the newline alone: the rest of the line is whole, and yet not to be added to."""
    place.write_bytes(place.read_bytes()[:-cut])
    assert kept(place) == [(0, 0), (1, 10)]
    with Journal(place, WORK, Plain()) as journal:
        journal.add(2, 21)
    assert kept(place) == [(0, 0), (1, 10), (2, 21)]


def test_any_changed_bit_ends_what_is_believed(place: Path) -> None:
    whole, bits = place.read_bytes(), random.Random(14)
    expected = [(0, 0), (1, 10), (2, 20)]
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[bits.randrange(len(whole))] ^= 1 << bits.randrange(8)
        place.write_bytes(damaged)
        found = kept(place)
        assert found == expected[: len(found)]
        assert len(found) < 3


def test_a_line_that_ends_in_something_else_is_not_believed(place: Path) -> None:
    place.write_bytes(place.read_bytes()[:-1] + b" ")
    assert kept(place) == [(0, 0), (1, 10)]


def test_a_shard_that_is_there_twice_is_not_believed(place: Path) -> None:
    lines = place.read_bytes().splitlines(keepends=True)
    place.write_bytes(b"".join([*lines[:3], lines[2], lines[3]]))
    assert kept(place) == [(0, 0), (1, 10)]


def sealed(entry: bytes, work: str = WORK) -> bytes:
    """Return a line with the right checksum, whatever it says."""
    return hashlib.sha256(work.encode() + b"\n" + entry).hexdigest().encode() + b" " + entry + b"\n"


STRANGE = {
    "no JSON": b"{",
    "a list": b"[0]",
    "no shard": b'{"n": 1}',
    "a shard that is a text": b'{"shard": "3", "n": 1}',
    "a shard that is a boolean": b'{"shard": true, "n": 1}',
    "another key": b'{"shard": 3}',
    "no UTF-8": b'{"shard": 3, "n": "\xff"}',
    "deep": b'{"shard": 3, "n": ' + b"[" * 100_000,
    "huge": b'{"shard": 3, "n": ' + b"9" * 10_000 + b"}",
    "nothing": b"",
}


@pytest.mark.parametrize("strange", STRANGE)
def test_a_right_checksum_excuses_nothing(
    place: Path, strange: str, capfd: pytest.CaptureFixture[str]
) -> None:
    @dataclass(frozen=True)
    class Strict(Plain):
        def read(self, _: int, entry: Any) -> int:
            if set(entry) != {"n"}:
                raise ValueError
            return int(entry["n"])

    place.write_bytes(place.read_bytes() + sealed(STRANGE[strange]))
    with Journal(place, WORK, Strict()) as journal:
        assert len(list(journal.entries())) == 3
    assert len(place.read_bytes().splitlines()) == 4
    assert capfd.readouterr() == ("", "")


def test_a_journal_that_cant_be_written(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "a.journal", tmp_path):
        with pytest.raises(UsageError, match="can't be written"):
            Journal(path, WORK, Plain())


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "a.journal"
    victim.write_text("the user's")
    path.symlink_to(victim)
    with pytest.raises(UsageError, match=r"a\.journal: can't be written \(.*symbolic links\)"):
        Journal(path, WORK, Plain())
    assert victim.read_text() == "the user's"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.journal")
    with pytest.raises(UsageError, match="the journal needs this name, and it is no regular file"):
        Journal(tmp_path / "a.journal", WORK, Plain())


def test_two_runs_at_once_are_refused(place: Path) -> None:
    with place.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another run uses this journal"):
            Journal(place, WORK, Plain())
    assert len(kept(place)) == 3


LIMITED = """
import resource, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[2] + "/helpers"]
from kedge_runtime.drift.journal import Journal
from kedge_runtime.errors import UsageError
from test_journal import WORK, Plain
resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
try:
    with Journal(Path(sys.argv[1]), WORK, Plain()) as journal:
        for shard in range(3, 10):
            journal.add(shard, shard)
except UsageError as error:
    print(error)
"""


def test_a_full_disk_is_told_and_what_was_noted_stays(place: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(place), str(Path(__file__).parent)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    remedy = "free some space and run again: the run resumes here"
    assert ran.stdout == f"{place}: can't be written (file too large); {remedy}\n"
    found = kept(place)
    assert found[:3] == [(0, 0), (1, 10), (2, 20)]


# From here on, real shards: of images, of an artefact and of a reference.
@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    drift_references.write_photos(folder, COUNT)
    return folder


@dataclass(frozen=True)
class Run3:
    """A comparison whose journal has all three shards."""

    task: Task
    images: ImageFolder
    expected: Part

    @property
    def parts(self) -> PartCodec:
        return PartCodec(shards_of(self.images), labels=4, alike=True)

    def noted(self, place: Path) -> list[dict[str, Any]]:
        """Write the journal; return its entries as plain data."""
        with Journal(place, WORK, self.parts) as journal:
            for shard in self.images.shards():
                journal.add(shard.index, measure(self.task, shard))
        lines = place.read_bytes().splitlines()[1:]
        return [json.loads(line.partition(b" ")[2]) for line in lines]


@pytest.fixture(scope="module")
def run3(artefacts: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run3:
    artefact = artefacts / "tiny.tflite"
    reference = tmp_path_factory.mktemp("reference") / "reference.npz"
    drift_references.write_for(artefact, photos, reference, noise=0.5)
    options = EngineOptions(threads=1)
    task = Task(artefact, read_artefact(artefact).digest, reference, photos, options)
    images = ImageFolder.of(photos)
    return Run3(task, images, merge(measure(task, shard) for shard in images.shards()))


def _rows(change: Callable[[np.ndarray[Any, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """Return what changes the rows of an entry."""

    def changed(entry: dict[str, Any]) -> None:
        rows = np.frombuffer(base64.b64decode(entry["rows"]), ROW).copy()
        found = change(rows)
        entry["rows"] = base64.b64encode((rows if found is None else found).tobytes()).decode()

    return changed


def _set(name: str, value: float, side: str = "") -> Callable[[dict[str, Any]], Any]:
    def change(rows: np.ndarray[Any, Any]) -> None:
        (rows[side] if side else rows)[name][0] = value

    return _rows(change)


def _seconds(values: list[float]) -> Callable[[dict[str, Any]], Any]:
    text = base64.b64encode(np.array(values).tobytes()).decode()
    return lambda entry: entry.update(seconds=text)


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a shard that isn't asked for": lambda entry: entry.update(shard=3),
    "a shard below all": lambda entry: entry.update(shard=-1),
    "another shard's": lambda entry: entry.update(shard=2),
    "nothing but its number": lambda entry: [entry.pop(k) for k in ("rows", "seconds", "failed")],
    "no rows": lambda entry: entry.update(rows=""),
    "rows of another kind": lambda entry: entry.update(rows=[1, 2]),
    "rows that are no base64": lambda entry: entry.update(rows="***"),
    "half a row": lambda entry: entry.update(rows=entry["rows"][:40]),
    "one row less": _rows(lambda rows: rows[1:]),
    "one row more": _rows(lambda rows: np.concatenate([rows, rows[:1]])),
    "an image of another shard": _set("image", 0),
    "an image that isn't there": _set("image", 10**9),
    "a confidence that is no number": _set("confidence", np.nan, "reference"),
    "an infinite entropy": _set("entropy", np.inf, "artefact"),
    "an infinite divergence": _set("kl", np.inf),
    "a distance that is no number": _set("cosine", np.nan),
    "a class beyond the labels": _set("top", 4, "artefact"),
    "a class below none": _set("top", -3, "reference"),
    "fewer labels than none": _set("labels", -1, "reference"),
    "no times": lambda entry: entry.update(seconds=""),
    "negative times": _seconds([-1.0] * 32),
    "times that are no numbers": _seconds([float("nan")] * 32),
    "infinite times": _seconds([float("inf")] * 32),
    "an unknown failure": lambda entry: entry.update(failed=[["x.png", "no"]]),
    "a failure that was measured": lambda entry: entry.update(failed=[["even/040.png", "no"]]),
    "a failure without its reason": lambda entry: entry.update(failed=[["even/040.png"]]),
    "failures of another kind": lambda entry: entry.update(failed=5),
    "one key more": lambda entry: entry.update(more=1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_shard_that_can_not_be_is_measured_again(run3: Run3, tmp_path: Path, damage: str) -> None:
    """ "1532 of 1500 images: PASS" was the verdict on a journal with one shard too many."""
    place = tmp_path / "report.json.0.journal"
    entries = run3.noted(place)
    DAMAGE[damage](entries[1])
    lines = [sealed(json.dumps(entry).encode()) for entry in entries]
    place.write_bytes(place.read_bytes().splitlines(keepends=True)[0] + b"".join(lines))
    with (
        Journal(place, WORK, run3.parts) as journal,
        Bar("work", COUNT + 1, io.StringIO()) as bar,
    ):
        assert [shard for shard, _ in journal.entries()] == [0]
        found = measure_all(run3.task, run3.images, bar, journal)
    assert found.rows.tobytes() == run3.expected.rows.tobytes()
    assert found.failed == run3.expected.failed
    assert bar.done == COUNT + 1


def test_an_intact_journal_is_believed(run3: Run3, tmp_path: Path) -> None:
    place = tmp_path / "report.json.0.journal"
    run3.noted(place)
    with Journal(place, WORK, run3.parts) as journal:
        parts = dict(journal.entries())
    assert merge(parts.values()).rows.tobytes() == run3.expected.rows.tobytes()


def test_outputs_of_other_kinds_have_no_distance_in_a_journal_either(
    run3: Run3, tmp_path: Path
) -> None:
    run3.noted(place := tmp_path / "a.journal")
    with Journal(place, WORK, replace(run3.parts, alike=False)) as journal:
        assert list(journal.entries()) == []


def _answering(artefact: Path) -> Recorder:
    classifier = Classifier.open(artefact)

    def answer(tensors: Any) -> Any:
        return np.stack([classifier.numbers(classifier.engine.run(each)) for each in tensors])

    return Recorder(classifier.preprocessor, answer)


RECORDED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a shard that isn't asked for": lambda entry: entry.update(shard=3),
    "names of other images": lambda entry: entry["names"].__setitem__(0, "x.png"),
    "a name twice": lambda entry: entry["names"].__setitem__(0, entry["names"][1]),
    "one name less": lambda entry: entry["names"].pop(),
    "names of another kind": lambda entry: entry.update(names="even"),
    "digests of other counts": lambda entry: entry.update(digests=entry["digests"][:64]),
    "no outputs": lambda entry: entry.update(outputs=""),
    "outputs of other counts": lambda entry: entry.update(outputs=entry["outputs"][:16]),
    "outputs that are no numbers": lambda entry: entry.update(
        outputs=base64.b64encode(np.full((32, 4), np.nan, np.float32).tobytes()).decode()
    ),
    "an image that failed and didn't": lambda entry: entry.update(
        failed=[[entry["names"][0], "no"]]
    ),
}


class _StopError(Exception):
    """What ends a run in its middle."""


@pytest.mark.parametrize("damage", RECORDED)
def test_answers_that_can_not_be_are_asked_again(
    artefacts: Path, photos: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, answering = ImageFolder.of(photos), _answering(artefacts / "tiny.tflite")
    facts = ReferenceFacts.of(read_artefact(artefacts / "tiny.tflite").contract)
    recording.write(tmp_path / "whole.npz", facts, images, answering)
    path = tmp_path / "reference.npz"
    with monkeypatch.context() as patch:
        patch.setattr(recording, "write_reference", _stop)
        with pytest.raises(_StopError):
            recording.write(path, facts, images, answering)
    head, *lines = beside(path).read_bytes().splitlines(keepends=True)
    entries = [json.loads(line.partition(b" ")[2]) for line in lines]
    RECORDED[damage](entries[1])
    work = json.loads(head)["work"]
    lines = [sealed(json.dumps(entry).encode(), work) for entry in entries]
    beside(path).write_bytes(head + b"".join(lines))
    recording.write(path, facts, images, answering)
    assert path.read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert len(Reference(path).names) == COUNT


def _stop(*_: object) -> None:
    raise _StopError


def test_answers_of_another_number_of_classes_are_told(
    artefacts: Path, photos: Path, tmp_path: Path
) -> None:
    images, path = ImageFolder.of(photos), tmp_path / "reference.npz"
    answering = _answering(artefacts / "tiny.tflite")
    widths = iter([3, 4, 4])

    def answer(tensors: Any) -> Any:
        return answering.answer(tensors)[:, : next(widths)]

    facts = ReferenceFacts.of(read_artefact(artefacts / "tiny.tflite").contract)
    with pytest.raises(UsageError, match=r"other numbers of classes; remove reference\.npz\.jour"):
        recording.write(path, facts, images, replace(answering, answer=answer))
    assert not path.exists()


def test_an_original_without_finite_answers_is_refused(
    artefacts: Path, photos: Path, tmp_path: Path
) -> None:
    answering = _answering(artefacts / "tiny.tflite")

    def answer(tensors: Any) -> Any:
        return answering.answer(tensors) * np.float32(np.nan)

    facts = ReferenceFacts.of(read_artefact(artefacts / "tiny.tflite").contract)
    with pytest.raises(EngineError, match="aren't finite"):
        recording.write(
            tmp_path / "a.npz", facts, ImageFolder.of(photos), replace(answering, answer=answer)
        )


def test_hostile_journals_are_begun_anew(shared: Path, run3: Run3, tmp_path: Path) -> None:
    found = sorted((shared / "data" / "hostile").glob("journal-*"))
    assert found
    for source in found:
        for codec in (run3.parts, AnswersCodec(shards_of(run3.images))):
            place = tmp_path / source.name
            place.write_bytes(source.read_bytes())
            with Journal(place, WORK, codec) as journal:  # type: ignore[misc]
                assert list(journal.entries()) == []


def test_a_drift_with_a_hostile_journal_ends_well(
    kedge: Run, run3: Run3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report.json"
    words = [run3.task.artefact, "--images", run3.task.folder, "--against", run3.task.reference]
    command = "kedge_runtime.commands.drift"
    with monkeypatch.context() as patch:
        patch.setattr(f"{command}.finish", lambda request: None)
        first = kedge("drift", *words, "--min-agreement", ".1", "--out", out)
    journal = tmp_path / "report.json.0.journal"
    head, *lines = journal.read_bytes().splitlines(keepends=True)
    extra = json.loads(lines[1].partition(b" ")[2]) | {"shard": 9}
    journal.write_bytes(
        head + b"".join(lines) + sealed(json.dumps(extra).encode(), json.loads(head)["work"])
    )
    again = kedge("drift", *words, "--min-agreement", ".1", "--out", out)
    assert first[0] == again[0] == 0
    assert json.loads(out.read_text())["drifts"][0]["images"] == COUNT


def test_a_full_disk_in_drift_is_one_line(run3: Run3, tmp_path: Path) -> None:
    code = (
        "import resource, sys; from kedge_runtime.cli import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); main()"
    )
    words = ["drift", run3.task.artefact, "--images", run3.task.folder]
    words += ["--against", run3.task.reference, "--out", tmp_path / "report.json"]
    command = [sys.executable, "-c", code, *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    (line,) = [each for each in ran.stderr.splitlines() if each.startswith("kedge: ")]
    assert "can't be written (file too large); free some space and run again" in line
    assert "Traceback" not in ran.stderr
