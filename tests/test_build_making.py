"""What is kept of conversions: each as soon as it is there, and nothing of files that changed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kedge_convert import pipeline, supervisor
from kedge_convert.build import keys, making
from kedge_convert.build.cache import Cache, Entry
from kedge_convert.build.config import Config, Gates, Model
from kedge_convert.build.facts import Known
from kedge_convert.build.matrix import Cell, Group, groups
from kedge_convert.job import Checked, Job, Outcome, failed
from kedge_convert.parity import Parity, Verdict
from kedge_convert.progress import Progress
from kedge_convert.supervisor.bounds import Limits
from kedge_convert.way import Way
from kedge_runtime.drift.gates import Estimate

PARITY = Parity(20, 1.0, 1.0, 0.1, 0.1, 0.1, 1.0, float("inf"), 0.0)
CONTENT = b"weights" + b"sha256:" + b"0" * 64


@pytest.fixture
def cells(tmp_path: Path) -> tuple[Cell, ...]:
    source = tmp_path / "m.keras"
    source.write_text("a model")
    model = Model("m", str(source), targets=("tflite:float32", "tflite:float16"))
    return groups(Config((model,)))[0].cells


def outcome(cell: Cell, folder: Path, *reasons: str) -> Outcome:
    path = folder / cell.name
    path.write_bytes(CONTENT)
    checked = Checked(path, len(CONTENT), 0.5, PARITY, Way(cell.target.precision), "softmax")
    return Outcome(cell.target, Verdict(reasons), checked)


@pytest.fixture
def place(tmp_path: Path) -> making.Place:
    cache = Cache(tmp_path / "cache")
    cache.open()
    return making.Place(cache, Limits(), tmp_path / "out")


def kept(
    cells: tuple[Cell, ...], place: making.Place, outcomes: Iterator[Outcome]
) -> Iterator[Outcome]:
    """Run the worker's half on outcomes that were made up."""
    wanted = making.wanted(cells)
    keys.content.cache_clear()  # the worker is another process
    with pytest.MonkeyPatch.context() as patch, Progress(lambda _: None) as progress:
        patch.setattr(pipeline, "outcomes", lambda *_: outcomes)
        yield from making.kept(wanted, place, groups_job(cells), progress)


def groups_job(cells: tuple[Cell, ...]) -> Job:
    model = replace(cells[0].model, targets=())
    return Job(model.request(cells[0].options), (), Path("out"))


def test_each_artefact_is_kept_as_soon_as_it_is_there(
    cells: tuple[Cell, ...], place: making.Place, tmp_path: Path
) -> None:
    outcomes = iter([outcome(cells[0], tmp_path), outcome(cells[1], tmp_path, "too far")])
    running = kept(cells, place, outcomes)
    next(running)
    assert [making.artefact(cell, place.cache) is not None for cell in cells] == [True, False]
    next(running)
    entries = [making.artefact(cell, place.cache) for cell in cells]
    assert [entry and entry.facts["reasons"] for entry in entries] == [[], ["too far"]]
    first = entries[0]
    assert first
    assert first.facts["digest"] == "sha256:" + "0" * 64
    assert first.facts["parity"]["sqnr"] is None
    assert place.cache.blob(first.files["artefact"]).read_bytes() == CONTENT


def test_each_group_has_its_own_log(
    cells: tuple[Cell, ...], place: making.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(job: Job, *_: object) -> list[Outcome]:
        job.log.write_text(f"{len(job.targets)} targets")
        return [failed(target, f"crashed; log {job.log}") for target in job.targets]

    monkeypatch.setattr(supervisor, "convert", convert)
    place.out.mkdir()
    for count, name in enumerate(("one", "two"), 1):
        some = [replace(cell, model=replace(cell.model, name=name)) for cell in cells[:count]]
        reasons = making._converted(Group(tuple(some)), some, place)
        assert set(reasons.values()) == {(f"crashed; log {place.out / name}.log",)}
    logs = {path.name: path.read_text() for path in place.out.iterdir()}
    assert logs == {"one.log": "1 targets", "two.log": "2 targets"}


def test_what_was_made_of_a_file_that_changed_is_not_kept(
    cells: tuple[Cell, ...], place: making.Place, tmp_path: Path
) -> None:
    def outcomes() -> Iterator[Outcome]:
        (tmp_path / "m.keras").write_text("another model")
        yield outcome(cells[0], tmp_path)

    list(kept(cells, place, outcomes()))
    assert not list((place.cache.folder / "entries").iterdir())


def test_a_latency_is_timed_until_its_gate_is_decided(
    cells: tuple[Cell, ...], place: making.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated = [replace(cell, gates=Gates(max_latency_ratio=1.0)) for cell in cells]
    entries = [
        place.cache.put(keys.artefact_key(cell), {}, {"artefact": cell.name.encode()})
        for cell in gated
    ]
    known, timed = Known({cell.name: cell for cell in gated}, place.cache), []

    def seconds(_: Known, cell: Cell, __: Entry) -> list[float]:
        timed.append(cell.name)
        return [0.1, 9.0] * 10 if len(timed) <= 2 else [1.0] * 20

    monkeypatch.setattr(Known, "_seconds", seconds)
    assert known._ratio(gated[0], entries[0]) == Estimate(1, 1, 1)
    assert not timed  # float32 isn't compared with itself
    busy, idle, kept = (known._ratio(gated[1], entries[1]) for _ in range(3))
    assert busy
    assert busy.low < 1 < busy.high
    assert idle == kept == Estimate(1, 1, 1)
    assert timed == [gated[1].name, gated[0].name] * 2


def test_a_failed_conversion_is_not_kept(cells: tuple[Cell, ...], place: making.Place) -> None:
    list(kept(cells, place, iter([Outcome(cells[0].target, Verdict(("crashed",)))])))
    assert not list((place.cache.folder / "entries").iterdir())
