"""A comparison as a whole: what is refused first, what is measured again, what the report says."""

import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

import drift_references
from conftest import MODELS
from kedge_runtime.artefact.file import read_artefact, seal
from kedge_runtime.artefact.signing import PublicKey, Trust
from kedge_runtime.drift.comparison import (
    Comparison,
    DriftRequest,
    compare,
    finish,
    prepare,
    unfinished_reference,
)
from kedge_runtime.drift.journal import ImageFolder
from kedge_runtime.drift.measure import opened
from kedge_runtime.drift.summary import GateLimits
from kedge_runtime.engines.choice import EngineOptions, cores
from kedge_runtime.errors import LostError, SignatureError, UsageError
from kedge_runtime.pool import Pool

COUNT = 40


@pytest.fixture
def desk(tmp_path: Path, artefacts: Path) -> Path:
    """Return a folder with an artefact `tiny.onnx`, 41 `photos`, and references of the artefact."""
    (tmp_path / "photos").mkdir()
    drift_references.write_photos(tmp_path / "photos", COUNT)
    path = tmp_path / "tiny.onnx"
    path.write_bytes((artefacts / "tiny.onnx").read_bytes())
    for name, noise in (("same", 0.0), ("near", 0.02)):
        reference = tmp_path / f"{name}.npz"
        drift_references.write_for(path, tmp_path / "photos", reference, noise)
    return tmp_path


@pytest.fixture
def asked(desk: Path) -> DriftRequest:
    """Return a request with one artefact that keeps its journal."""
    options, out = EngineOptions(threads=1), desk / "report.json"
    return DriftRequest((desk / "tiny.onnx",), desk / "photos", "none", GateLimits(), options, out)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    opened.cache_clear()
    yield
    opened.cache_clear()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of the images that are read from now on."""
    names: list[str] = []

    def noting(path: Path) -> bytes:
        names.append(path.name)
        return path.read_bytes()

    monkeypatch.setattr("kedge_runtime.drift.measure.read_bytes", noting)
    return names


def _sealed_anew(path: Path, **provenance: Any) -> None:
    """Seal an artefact's model again, with another provenance and so another digest."""
    artefact = read_artefact(path)
    known = replace(artefact.contract.provenance, **provenance)
    contract = replace(artefact.contract, provenance=known)
    path.write_bytes(seal("onnx", (MODELS / "tiny.onnx").read_bytes(), contract, artefact.golden))


def test_a_sample_is_spread_evenly_and_keeps_its_classes(
    tmp_path: Path, asked: DriftRequest
) -> None:
    images = ImageFolder(tmp_path, tuple(f"{i}.png" for i in range(10)))
    labelled = Comparison(asked, (), images, np.arange(10))
    expected = {
        1: [0],
        2: [0, 9],
        3: [0, 4, 9],
        4: [0, 3, 6, 9],
        10: [*range(10)],
        99: [*range(10)],
    }
    for count, indices in expected.items():
        sample = labelled.sample(count)
        assert sample.images == tuple(tmp_path / f"{i}.png" for i in indices)
        assert sample.truth is not None
        assert sample.truth.tolist() == indices
    assert replace(labelled, truth=None).sample(3).truth is None


def test_the_report_says_what_ran(asked: DriftRequest, desk: Path) -> None:
    (artefact,) = asked.artefacts
    _sealed_anew(artefact, parameters=1000, precision="float16")
    (drift,) = compare(prepare(asked), desk / "same.npz")
    said, size = drift.artefact, artefact.stat().st_size
    assert (said.path, said.digest) == (str(artefact), read_artefact(artefact).digest)
    assert (said.target, said.precision) == ("onnx:float32", "float16")
    assert (said.engine, said.threads, said.delegate) == ("onnxruntime", 1, None)
    assert said.library == "onnxruntime"
    assert (said.bytes, said.ratio) == (size, size / 4000)
    _sealed_anew(artefact, parameters=0)
    (drift,) = compare(prepare(asked), desk / "same.npz")
    assert drift.artefact.ratio is None


Change = Callable[[DriftRequest, pytest.MonkeyPatch], DriftRequest]


def _at_home(request: DriftRequest, patch: pytest.MonkeyPatch) -> DriftRequest:
    """Name the same files from their folder."""
    patch.chdir(request.folder.parent)
    return replace(request, artefacts=(Path("tiny.onnx"),), folder=Path("photos"))


def _resealed(request: DriftRequest, _: pytest.MonkeyPatch) -> DriftRequest:
    _sealed_anew(request.artefacts[0], card="another")
    return request


def _retouched(request: DriftRequest, _: pytest.MonkeyPatch) -> DriftRequest:
    path = request.folder / "odd" / "001.png"
    os.utime(path, (1, 1))
    return request


def _updated(request: DriftRequest, patch: pytest.MonkeyPatch) -> DriftRequest:
    patch.setattr("kedge_runtime.drift.comparison.__version__", "0.0.1")
    return request


def _with(**options: Any) -> Change:
    return lambda request, _: replace(request, engine=replace(request.engine, **options))


CHANGES: dict[str, tuple[Change, bool]] = {
    "nothing": (lambda request, _: request, False),
    "the folder it is named from": (_at_home, False),
    "the gates": (lambda request, _: replace(request, limits=GateLimits(min_agreement=0.5)), False),
    "where it is done": (lambda request, _: replace(request, pool=Pool(1)), False),
    "the artefact": (_resealed, True),
    "an image": (_retouched, True),
    "kedge": (_updated, True),
    "the threads": (_with(threads=2), True),
    "the engine": (_with(engine="opencv"), True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_rerun_measures_again_what_a_change_has_a_part_in(
    asked: DriftRequest, desk: Path, change: str, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(prepare(asked), desk / "same.npz")
    assert len(read) == COUNT
    read.clear()
    make, again = CHANGES[change]
    compare(prepare(make(asked, monkeypatch)), desk / "same.npz")
    assert len(read) == (COUNT if again else 0)


def test_a_rerun_against_another_reference_measures_again(
    asked: DriftRequest, desk: Path, read: list[str]
) -> None:
    for name in ("same", "near", "near"):
        compare(prepare(asked), desk / f"{name}.npz")
    assert len(read) == 2 * COUNT


def test_an_artefact_of_another_model_is_refused_by_name(asked: DriftRequest, desk: Path) -> None:
    second = desk / "second.onnx"
    second.write_bytes(asked.artefacts[0].read_bytes())
    _sealed_anew(second, weights_digest="sha256:1")
    comparison = prepare(replace(asked, artefacts=(*asked.artefacts, second)))
    with pytest.raises(UsageError, match=rf"is no reference of {second}: its weights_digest"):
        compare(comparison, desk / "same.npz")


def test_all_cores_are_as_many_as_there_are(
    asked: DriftRequest, desk: Path, read: list[str]
) -> None:
    """A rerun on a machine with other cores is another measurement."""
    for threads in (cores(), None):
        options = EngineOptions(threads=threads)
        (drift,) = compare(prepare(replace(asked, engine=options)), desk / "same.npz")
        assert drift.artefact.threads == cores()
    assert len(read) == COUNT


def test_what_is_done_leaves_nothing_behind(asked: DriftRequest, desk: Path) -> None:
    second = desk / "second.onnx"
    second.write_bytes(asked.artefacts[0].read_bytes())
    asked = replace(asked, artefacts=(*asked.artefacts, second))
    before = {*desk.iterdir()}
    drifts = compare(prepare(asked), desk / "same.npz")
    assert [Path(drift.artefact.path).name for drift in drifts] == ["tiny.onnx", "second.onnx"]
    journals = {desk / f"report.json.{number}.journal" for number in (0, 1)}
    assert {*desk.iterdir()} - before == journals
    for name in (".report.json.reference.npz", ".report.json.reference.npz.journal"):
        (desk / name).write_bytes(b"")
    assert unfinished_reference(desk / "report.json") == desk / ".report.json.reference.npz"
    finish(replace(asked, out=None))
    assert journals < {*desk.iterdir()}
    for _ in range(2):  # the second time there is nothing
        finish(asked)
        assert {*desk.iterdir()} == before


def test_a_demanded_signature_is_looked_for_where_the_work_is_done(
    asked: DriftRequest, desk: Path
) -> None:
    demanding = replace(asked, trust=Trust(PublicKey(bytes(32))))
    with pytest.raises(SignatureError, match=r"tiny.onnx: carries no signature"):
        prepare(demanding)
    # As if an unsigned file were put in its place between the two.
    swapped = replace(prepare(asked), request=demanding)
    with pytest.raises(SignatureError, match=r"tiny.onnx: carries no signature"):
        compare(swapped, desk / "same.npz")


class _Lost(Executor):
    """Workers that are gone."""

    def map(self, *_: object, **__: object) -> NoReturn:
        raise LostError("ended 4 processes")


def test_lost_work_is_said_with_its_artefact(
    asked: DriftRequest, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[Pool] = []

    @contextmanager
    def lost(pool: Pool) -> Iterator[Executor]:
        pools.append(pool)
        yield _Lost()

    monkeypatch.setattr("kedge_runtime.drift.comparison.executor", lost)
    with pytest.raises(LostError, match=r"^tiny.onnx: ended 4 processes$"):
        compare(prepare(replace(asked, pool=Pool(3))), desk / "same.npz")
    assert pools == [Pool(3)]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_how_far_each_artefact_is(
    asked: DriftRequest, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    compare(prepare(asked), desk / "same.npz")
    last = terminal.getvalue().split("\r")[-1]
    assert last.startswith("tiny.onnx ")
    assert f" {COUNT + 1}/{COUNT + 1} " in last


def test_independent_classes_take_no_labels(asked: DriftRequest, desk: Path) -> None:
    artefact = read_artefact(asked.artefacts[0])
    output = replace(artefact.contract.output, activation="sigmoid")
    contract = replace(artefact.contract, output=output)
    path = desk / "several.onnx"
    path.write_bytes(seal("onnx", (MODELS / "tiny.onnx").read_bytes(), contract, artefact.golden))
    (desk / "photos" / "odd").rename(desk / "photos" / "green")
    (desk / "photos" / "even").rename(desk / "photos" / "red")
    # One such artefact is enough.
    for paths in ((path,), (asked.artefacts[0], path)):
        several = replace(asked, artefacts=paths)
        for labels in ("auto", "none"):
            assert prepare(replace(several, truth=labels)).truth is None
        with pytest.raises(
            UsageError, match=r"--truth folders: .*independent classes; leave it out$"
        ):
            prepare(replace(several, truth="folders"))
        with pytest.raises(UsageError, match=r"--max-drop: the answers are sets"):
            prepare(replace(several, limits=GateLimits(max_drop=0.1)))


def test_a_model_of_features_has_no_answers(asked: DriftRequest, desk: Path) -> None:
    artefact = read_artefact(asked.artefacts[0])
    contract = replace(artefact.contract, output=replace(artefact.contract.output, kind="features"))
    path = desk / "features.onnx"
    path.write_bytes(seal("onnx", (MODELS / "tiny.onnx").read_bytes(), contract, artefact.golden))
    with pytest.raises(
        UsageError, match=r"features.onnx: returns features, but drift compares classes"
    ):
        prepare(replace(asked, artefacts=(asked.artefacts[0], path)))


def test_folders_tell_the_class_of_each_image(asked: DriftRequest, desk: Path) -> None:
    (desk / "photos" / "odd").rename(desk / "photos" / "green")
    (desk / "photos" / "even").rename(desk / "photos" / "t0")
    comparison = prepare(replace(asked, truth="auto", limits=GateLimits(max_drop=0.1)))
    names = comparison.images.names
    assert comparison.truth is not None
    assert comparison.truth.tolist() == [int(name.startswith("green")) for name in names]
    with pytest.raises(UsageError, match="--max-drop: no ground truth found"):
        prepare(replace(asked, limits=GateLimits(max_drop=0.1)))
