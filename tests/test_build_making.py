"""What is kept of conversions: each as soon as it is there, and nothing of files that changed."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import tiny_contract
from kedge_convert import pipeline
from kedge_convert.export.exported import Recipe
from kedge_convert.job import Checked, Job, Outcome, failed
from kedge_convert.matrix import evidence, keys, make
from kedge_convert.matrix.cache import Cache, Entry
from kedge_convert.matrix.cells import Cell, CellGroup, groups
from kedge_convert.matrix.config import BuildConfig, BuildGates, ModelConfig
from kedge_convert.matrix.evidence import EvidenceStore
from kedge_convert.parity import Parity
from kedge_convert.verdict import Verdict
from kedge_convert.worker import supervisor
from kedge_convert.worker.process import ProcessLimits
from kedge_convert.worker.progress import Progress
from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.drift.gates import Estimate

PARITY = Parity(20, 1.0, 1.0, 0.1, 0.1, 0.1, 1.0, float("inf"), 0.0)


@pytest.fixture
def cells(tmp_path: Path) -> tuple[Cell, ...]:
    source = tmp_path / "m.keras"
    source.write_text("a model")
    model = ModelConfig("m", str(source), targets=("tflite:float32", "tflite:float16"))
    return groups(BuildConfig((model,)))[0].cells


Sealed = Callable[..., bytes]


@pytest.fixture
def sealed(models: dict[str, bytes], golden: Golden) -> Sealed:
    """Return a function that seals what a cell asks for, but for other facts of its provenance."""

    def made(cell: Cell, **other: Any) -> bytes:
        contract = tiny_contract("tflite")
        asked = replace(contract.provenance, source="m", target=str(cell.target))
        contract = replace(contract, provenance=replace(asked, **other))
        return seal("tflite", models["tflite"], contract, golden)

    return made


def outcome(cell: Cell, folder: Path, content: bytes, *reasons: str) -> Outcome:
    path = folder / cell.name
    path.write_bytes(content)
    checked = Checked(path, len(content), 0.5, PARITY, Recipe(cell.target.precision), "softmax")
    return Outcome(cell.target, Verdict(reasons), checked)


@pytest.fixture
def place(tmp_path: Path) -> make.Workspace:
    cache = Cache(tmp_path / "cache")
    cache.open()
    return make.Workspace(cache, ProcessLimits(), tmp_path / "out")


def kept(
    cells: tuple[Cell, ...], place: make.Workspace, outcomes: Iterator[Outcome]
) -> Iterator[Outcome]:
    """Run the worker's half on outcomes that were made up."""
    wanted = make.pending(cells)
    keys.content_of.cache_clear()  # the worker is another process
    with pytest.MonkeyPatch.context() as patch, Progress(lambda _: None) as progress:
        patch.setattr(pipeline, "convert", lambda *_: outcomes)
        yield from make.convert_and_store(wanted, place, groups_job(cells), progress)


def groups_job(cells: tuple[Cell, ...]) -> Job:
    model = replace(cells[0].model, targets=())
    return Job(model.request(cells[0].options), (), Path("out"))


def test_each_artefact_is_kept_as_soon_as_it_is_there(
    cells: tuple[Cell, ...], place: make.Workspace, tmp_path: Path, sealed: Sealed
) -> None:
    contents = list(map(sealed, cells))
    outcomes = iter(
        [
            outcome(cells[0], tmp_path, contents[0]),
            outcome(cells[1], tmp_path, contents[1], "too far"),
        ]
    )
    running = kept(cells, place, outcomes)
    next(running)
    assert [evidence.artefact(cell, place.cache) is not None for cell in cells] == [True, False]
    next(running)
    entries = [evidence.artefact(cell, place.cache) for cell in cells]
    assert [entry and entry.facts["reasons"] for entry in entries] == [[], ["too far"]]
    first = entries[0]
    assert first
    assert first.facts["digest"].encode() == contents[0][-71:]
    assert first.facts["images"] == 20
    assert place.cache.blob(first.files["artefact"]).read_bytes() == contents[0]


def test_each_group_has_its_own_log(
    cells: tuple[Cell, ...], place: make.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(job: Job, *_: object) -> list[Outcome]:
        job.log.write_text(f"{len(job.targets)} targets")
        return [failed(target, f"crashed; log {job.log}") for target in job.targets]

    monkeypatch.setattr(supervisor, "convert", convert)
    place.out.mkdir()
    for count, name in enumerate(("one", "two"), 1):
        some = [replace(cell, model=replace(cell.model, name=name)) for cell in cells[:count]]
        reasons = make._converted(CellGroup(tuple(some)), some, place)
        assert set(reasons.values()) == {(f"crashed; log {place.out / name}.log",)}
    logs = {path.name: path.read_text() for path in place.out.iterdir()}
    assert logs == {"one.log": "1 targets", "two.log": "2 targets"}


def test_what_was_made_of_a_file_that_changed_is_not_kept(
    cells: tuple[Cell, ...], place: make.Workspace, tmp_path: Path, sealed: Sealed
) -> None:
    def outcomes() -> Iterator[Outcome]:
        (tmp_path / "m.keras").write_text("another model")
        yield outcome(cells[0], tmp_path, sealed(cells[0]))

    list(kept(cells, place, outcomes()))
    assert not list((place.cache.folder / "entries").iterdir())


def test_a_latency_is_timed_until_its_gate_is_decided(
    cells: tuple[Cell, ...],
    place: make.Workspace,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    sealed: Sealed,
) -> None:
    gated = [replace(cell, gates=BuildGates(max_latency_ratio=1.0)) for cell in cells]
    list(kept(cells, place, iter([outcome(cell, tmp_path, sealed(cell)) for cell in cells])))
    entries = [entry for cell in gated if (entry := evidence.artefact(cell, place.cache))]
    known, timed = EvidenceStore({cell.name: cell for cell in gated}, place.cache), []

    def seconds(_: EvidenceStore, cell: Cell, __: Entry) -> list[float]:
        timed.append(cell.name)
        return [0.1, 9.0] * 10 if len(timed) <= 2 else [1.0] * 20

    monkeypatch.setattr(EvidenceStore, "_seconds", seconds)
    assert known._latency_ratio(gated[0], entries[0]) == Estimate(1, 1, 1)
    assert not timed  # float32 isn't compared with itself
    busy, idle, again = (known._latency_ratio(gated[1], entries[1]) for _ in range(3))
    assert busy
    assert busy.low < 1 < busy.high
    assert idle == again == Estimate(1, 1, 1)
    assert timed == [gated[1].name, gated[0].name] * 2


def test_a_failed_conversion_is_not_kept(cells: tuple[Cell, ...], place: make.Workspace) -> None:
    list(kept(cells, place, iter([Outcome(cells[0].target, Verdict(("crashed",)))])))
    assert not list((place.cache.folder / "entries").iterdir())


def _put(cell: Cell, cache: Cache, content: bytes, **facts: Any) -> None:
    """Keep a conversion as an attacker who may write to the cache would."""
    right = {
        "digest": content[-71:].decode(),
        "bytes": len(content),
        "reasons": [],
        "notes": [],
        "ratio": 0.5,
        "recipe": {"precision": "float32"},
        "images": 20,
        "seconds": 1.0,
    }
    cache.put(keys.artefact_key(cell), {**right, **facts}, {"artefact": content})


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "of another target": ({"target": "onnx:int8"}, {}, "its target is 'onnx:int8'"),
    "of another model": ({"source": "other"}, {}, "it was made from 'other'"),
    "for a device": ({"device": "coral"}, {}, "its device is 'coral', expected ''"),
    "of another output": ({"output": "2"}, {}, "its output is '2', expected ''"),
    "of another signature": ({"signature": "x"}, {}, "its signature is 'x'"),
    "with another seal": ({}, {"digest": "sha256:" + "0" * 64}, "its digest is 'sha256:"),
    "of another size": ({}, {"bytes": 5}, "expected 5"),
    "with a size that is a text": ({}, {"bytes": "5"}, "conversion.bytes: got '5'"),
    "with reasons that are a text": ({}, {"reasons": "no"}, "conversion.reasons: got 'no'"),
    "made in no way": ({}, {"recipe": {}}, "the key 'precision' is missing"),
    "with a fact more": ({}, {"more": 1}, "unknown key 'more'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_lies_under_a_key_is_published_only_if_it_is_asked_for(
    cells: tuple[Cell, ...],
    place: make.Workspace,
    sealed: Sealed,
    wrong: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    provenance, facts, line = WRONG[wrong]
    _put(cells[0], place.cache, sealed(cells[0]))
    assert evidence.artefact(cells[0], place.cache)
    assert capfd.readouterr().err == ""
    _put(cells[0], place.cache, sealed(cells[0], **provenance), **facts)
    assert evidence.artefact(cells[0], place.cache) is None
    assert not make.is_done(cells[0], place.cache)
    (said,) = capfd.readouterr().err.splitlines()
    assert line in said
    assert said.endswith("; building it again")


def test_a_file_without_a_right_seal_is_made_again(
    cells: tuple[Cell, ...],
    place: make.Workspace,
    sealed: Sealed,
    capfd: pytest.CaptureFixture[str],
) -> None:
    whole = sealed(cells[0])
    for content, line in {
        b"no artefact": "carries no kedge seal",
        whole[:100] + b"x" + whole[101:]: "changed since it was sealed",
    }.items():
        _put(cells[0], place.cache, content)
        assert evidence.artefact(cells[0], place.cache) is None
        assert line in capfd.readouterr().err
    place.cache.put(keys.artefact_key(cells[0]), {}, {})
    assert evidence.artefact(cells[0], place.cache) is None


@pytest.mark.parametrize(
    ("model", "source"),
    [
        ({"source": "demo"}, "demo"),
        ({"source": "MobileNetV2"}, "mobilenetv2"),
        ({"source": "here/net.keras"}, "net"),
        ({"source": "here/saved"}, "saved"),
        ({"source": "here/saved.v2"}, "saved.v2"),
        ({"source": "here/link"}, "saved"),
        ({"source": "here/saved/."}, "saved"),
    ],
)
def test_a_model_has_the_names_that_the_converter_gives_it(
    tmp_path: Path, model: dict[str, str], source: str
) -> None:
    (tmp_path / "here" / "saved").mkdir(parents=True)
    (tmp_path / "here" / "link").symlink_to(tmp_path / "here" / "saved")
    given = {**model, "source": model["source"].replace("here", str(tmp_path / "here"))}
    (cell,) = groups(BuildConfig((ModelConfig("m", targets=("tflite:int8",), **given),)))[0].cells  # type: ignore[arg-type]
    assert source in evidence._names(cell)


@pytest.mark.parametrize("facts", [{}, {"value": 1.0}, {"value": "1", "low": 1, "high": 1}])
def test_other_facts_of_another_kind_are_made_again(
    cells: tuple[Cell, ...], place: make.Workspace, sealed: Sealed, facts: dict[str, Any]
) -> None:
    cache = place.cache
    cache.put("timing", facts)
    assert evidence.estimate("timing", cache) is None
    cache.put("fit", {"operators": facts})
    assert evidence.findings("fit", cache) is None
    _put(cells[0], cache, sealed(cells[0]))
    made = evidence.artefact(cells[0], cache)
    assert made
    imaged = replace(cells[0], model=replace(cells[0].model, images=str(place.cache.folder)))
    cache.put(keys.drift_key(imaged, made.files["artefact"]), facts)
    assert evidence.measurement(imaged, cache, made) is None
