"""References, shards and journals: what is kept, what is refused, and that no division shows."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import drift_references
from kedge_runtime.artefact.contract import Output
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import softmax
from kedge_runtime.drift.codecs import PartCodec, shards_of
from kedge_runtime.drift.journal import (
    Failure,
    ImageFolder,
    Journal,
    Shard,
    content_digest,
    packed,
    unpacked,
)
from kedge_runtime.drift.measure import NONE, ROW, Part, Task, measure, measure_all, merge, row
from kedge_runtime.drift.reference import Recorded, Reference, ReferenceFacts, write_reference
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import ArtefactError, KedgeError, UsageError
from kedge_runtime.progress import Bar

COUNT = 40


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of COUNT images and one that is broken."""
    folder = tmp_path_factory.mktemp("photos")
    drift_references.write_photos(folder, COUNT)
    return folder


Record = Callable[..., Path]


@pytest.fixture
def record(artefacts: Path, photos: Path, tmp_path: Path, form: str) -> Record:
    """Return a function that writes a reference: the artefact's own outputs plus `noise`."""

    def written(noise: float = 0.0, name: str = "reference.npz") -> Path:
        artefact = artefacts / f"tiny.{form}"
        return drift_references.write_for(artefact, photos, tmp_path / name, noise)

    return written


def _task(artefacts: Path, form: str, reference: Path, photos: Path) -> Task:
    path = artefacts / f"tiny.{form}"
    return Task(path, read_artefact(path).digest, reference, photos, EngineOptions(threads=1))


def _equal(left: Part, right: Part) -> bool:
    return left.rows.tobytes() == right.rows.tobytes() and left.failed == right.failed


@pytest.mark.parametrize("size", [1, 7, 32, 1000])
def test_every_division_gives_the_same_rows(
    artefacts: Path, photos: Path, record: Record, form: str, size: int
) -> None:
    task = _task(artefacts, form, record(0.5), photos)
    images = ImageFolder.of(photos)
    whole = merge([measure(task, shard) for shard in images.shards(1000)])
    parts = [measure(task, shard) for shard in images.shards(size)]
    assert _equal(whole, merge(reversed(parts)))
    assert len(whole.rows) == COUNT
    assert [failure.image for failure in whole.failed] == ["odd/17 broken.jpg"]
    assert len(whole.seconds) == COUNT


def test_a_row_holds_both_answers_and_their_distance(
    artefacts: Path, photos: Path, record: Record, form: str
) -> None:
    reference = record(0.5)
    task = _task(artefacts, form, reference, photos)
    images = ImageFolder.of(photos)
    rows = merge(measure(task, shard) for shard in images.shards()).rows
    originals = np.load(reference)["outputs"].astype(np.float64)
    classifier = Classifier.open(task.artefact)
    names = np.array(images.names)[rows["image"]]
    found = np.stack([classifier.outputs(photos / name) for name in names]).astype(np.float64)
    np.testing.assert_allclose(rows["noise"], ((originals - found) ** 2).sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(rows["signal"], (originals**2).sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(rows["max_error"], abs(originals - found).max(axis=1), rtol=1e-6)
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (originals, found))
    np.testing.assert_allclose(rows["kl"], (p * np.log(p / q)).sum(axis=1), atol=1e-6)
    for side, values in (("reference", p), ("artefact", q)):
        ranked = np.sort(values, axis=1)
        assert np.array_equal(rows[side]["top"][:, 0], values.argmax(axis=1))
        assert (rows[side]["top"][:, 4] == NONE).all()
        np.testing.assert_allclose(rows[side]["confidence"], ranked[:, -1], rtol=1e-5)
        np.testing.assert_allclose(rows[side]["margin"], ranked[:, -1] - ranked[:, -2], atol=1e-6)
        entropy = -(values * np.log(values)).sum(axis=1) / np.log(4)
        np.testing.assert_allclose(rows[side]["entropy"], entropy, atol=1e-6)


def test_other_kinds_have_no_distance_but_the_probabilities() -> None:
    logits, output = np.array([2.0, 1.0, 0.0], np.float32), Output()
    shares = softmax(logits)
    (found,) = row(0, (logits, output), (shares, replace(output, kind="softmax")))
    assert found["kl"] == pytest.approx(0, abs=1e-6)
    assert np.isnan(found["cosine"])
    assert np.isnan(found["noise"])


def test_the_background_is_no_label() -> None:
    output = Output(label_offset=1)
    (found,) = row(
        0, (np.array([3.0, 1, 2], np.float32), output), (np.arange(3, dtype=np.float32), output)
    )
    assert found["reference"]["top"].tolist() == [-1, 1, 0, NONE, NONE]


def test_numpy_reads_a_reference_too(record: Record) -> None:
    with np.load(record(), allow_pickle=False) as arrays:
        assert arrays["outputs"].shape == (COUNT, 4)
        assert arrays["digests"].shape == (COUNT, 32)
        assert json.loads(arrays["facts"].tobytes())["source"] == "tiny"
        assert len(json.loads(arrays["names"].tobytes())) == COUNT


def test_many_images_one_long_name_and_names_of_any_bytes(tmp_path: Path, artefacts: Path) -> None:
    count, path = 40_000, tmp_path / "reference.npz"
    names = ["x" * 234, "caf\udce9.jpg", "a\nb.jpg", *(f"{i:06}.jpg" for i in range(3, count))]
    failed = tuple(Failure(f"{i:06}.png", "photos: no image " * 5) for i in range(10_000))
    facts = ReferenceFacts.of(read_artefact(artefacts / "tiny.onnx").contract)
    part = Recorded(names, np.zeros((count, 32), np.uint8), np.zeros((count, 4), np.float32))
    write_reference(path, replace(facts, failed=failed), lambda: [part])
    known = Reference(path)
    assert known.names == names
    assert known.facts.failed == failed


def test_the_same_answers_give_the_same_bytes(record: Record) -> None:
    assert record(name="a.npz").read_bytes() == record(name="b.npz").read_bytes()


def test_a_reference_of_other_images(photos: Path, record: Record) -> None:
    reference = Reference(record())
    digest = np.zeros(32, np.uint8)
    with pytest.raises(UsageError, match=r"even/000.png has changed since"):
        reference.outputs("even/000.png", digest)
    with pytest.raises(UsageError, match=r"new.png is not in it"):
        reference.outputs("new.png", digest)
    right = content_digest((photos / "even/000.png").read_bytes())
    assert reference.outputs("even/000.png", right).shape == (4,)


def test_a_reference_of_another_original(artefacts: Path, record: Record, form: str) -> None:
    reference = Reference(record())
    contract = read_artefact(artefacts / f"tiny.{form}").contract
    reference.check(contract, Path("a.tflite"))
    geometry = replace(contract.input.geometry, resize="nearest")
    normalisation = replace(contract.input.normalisation, colour="bgr")
    others = {
        "weights_digest": replace(
            contract, provenance=replace(contract.provenance, weights_digest="sha256:1")
        ),
        "geometry": replace(contract, input=replace(contract.input, geometry=geometry)),
        "normalisation": replace(
            contract, input=replace(contract.input, normalisation=normalisation)
        ),
        "output": replace(contract, output=replace(contract.output, activation="sigmoid")),
    }
    for what, other in others.items():
        with pytest.raises(UsageError, match=f"is no reference of a.tflite: its {what} is"):
            reference.check(other, Path("a.tflite"))


def _flipped(content: bytes) -> bytes:
    at = content.index(b"outputs.npy") + 300
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _zip(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def _repacked(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as given, zipfile.ZipFile(file, "w", 8) as archive:
        for name in given.namelist():
            archive.writestr(name, given.read(name))
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-200],
        lambda content: b"no zip at all",
        lambda content: _zip(facts=b"?", names=b"?", digests=b"?", outputs=b"?"),
        lambda content: _zip(facts=b"?"),
        _repacked,
        _flipped,
    ],
)
def test_a_damaged_reference(record: Record, damage: Callable[[bytes], bytes]) -> None:
    path = record()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtefactError, match="no reference of `kedge drift --record`"):
        Reference(path)


def test_a_missing_reference(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        Reference(tmp_path / "none.npz")


def test_a_reference_of_nothing(tmp_path: Path, artefacts: Path) -> None:
    facts = ReferenceFacts.of(read_artefact(artefacts / "tiny.onnx").contract)
    with pytest.raises(UsageError, match="no readable image"):
        write_reference(tmp_path / "reference.npz", facts, list)
    assert not (tmp_path / "reference.npz").exists()


class _StopError(Exception):
    """What ends a run in its middle."""


def test_a_stopped_run_goes_on(
    artefacts: Path,
    photos: Path,
    record: Record,
    form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = _task(artefacts, form, record(0.5), photos)
    images = ImageFolder.of(photos)
    parts = PartCodec(shards_of(images), 4, alike=True)
    expected = merge(measure(task, shard) for shard in images.shards())
    done: list[int] = []

    def stopping(task: Task, shard: Shard) -> Part:
        if not done:
            done.append(shard.index)
            return measure(task, shard)
        raise _StopError

    monkeypatch.setattr("kedge_runtime.drift.measure.measure", stopping)
    place = tmp_path / "report.json.0.journal"
    with pytest.raises(_StopError), Journal(place, "work", parts) as journal, _bar() as bar:
        measure_all(task, images, bar, journal)
    monkeypatch.undo()
    with place.open("ab") as file:
        file.write(b'{"shard": 1, "rows": "torn')
    with Journal(place, "work", parts) as journal, _bar() as bar:
        assert [shard for shard, _ in journal.entries()] == [0]
        assert _equal(measure_all(task, images, bar, journal), expected)
        assert bar.done == len(images.names)
        assert [shard for shard, _ in journal.entries()] == [0, 1]


def _bar() -> Bar:
    return Bar("work", COUNT + 1, io.StringIO())


def test_arrays_survive_the_journal() -> None:
    rows = np.zeros(3, ROW)
    rows["kl"] = [np.nan, 1 / 3, 5e-324]
    assert unpacked(packed(rows), ROW).tobytes() == rows.tobytes()


def test_a_changed_folder_has_another_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    first = ImageFolder.of(tmp_path).fingerprint()
    assert ImageFolder.of(tmp_path).fingerprint() == first
    (tmp_path / "a.png").write_bytes(b"12")
    changed = ImageFolder.of(tmp_path).fingerprint()
    (tmp_path / "caf\udce9.png").write_bytes(b"1")  # Latin-1
    assert len({first, changed, ImageFolder.of(tmp_path).fingerprint()}) == 3


def test_a_link_to_nowhere_is_a_image_with_a_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "target")
    images = ImageFolder.of(tmp_path)
    first = images.fingerprint()
    (tmp_path / "target").write_bytes(b"1")
    assert images.fingerprint() != first


def test_no_folder(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(KedgeError, match=r"no \w+ in it|no such folder"):
            ImageFolder.of(folder)


MULTI = Output("sigmoid", thresholds=(0.5, 0.5, 0.3), activation="sigmoid")


def test_a_row_of_independent_classes_has_their_set() -> None:
    """Those that the other side doesn't give come first, whatever their probability."""
    sides = [np.array(p, np.float32) for p in ([0.9, 0.6, 0.2], [0.95, 0.4, 0.35])]
    (found,) = row(4, (sides[0], MULTI), (sides[1], MULTI))
    assert found["changed"]
    assert found["reference"]["top"].tolist() == [1, 0, *[NONE] * 3]
    assert found["artefact"]["top"].tolist() == [2, 0, *[NONE] * 3]
    assert (found["reference"]["labels"], found["artefact"]["labels"]) == (2, 2)
    margins = [found[side]["margin"] for side in ("reference", "artefact")]
    assert margins == pytest.approx([0.1, 0.05])
    (same,) = row(4, (sides[0], MULTI), (sides[0] * np.float32(0.9), MULTI))
    assert not same["changed"]


def test_no_label_is_an_answer_too() -> None:
    nothing = np.zeros(3, np.float32)
    (found,) = row(0, (nothing, MULTI), (nothing, MULTI))
    assert (found["reference"]["labels"], found["changed"]) == (0, False)
    assert set(found["reference"]["top"]) == {NONE}
