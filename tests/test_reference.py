"""The reference as a file of unknown origin: each row with its name, its digest and its numbers."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.drift.reference import Recorded, Reference, ReferenceFacts, write_reference
from kedge_runtime.errors import ArtefactError

COUNT = 1000  # so that the outputs are longer than what zipfile reads for their header
CLASSES = 4

Members = dict[str, bytes]


@pytest.fixture
def whole(artefacts: Path, tmp_path: Path) -> Path:
    """Return a reference of COUNT images."""
    facts = ReferenceFacts.of(read_artefact(artefacts / "tiny.onnx").contract)
    names = [f"{i:03}.png" for i in range(COUNT)]
    outputs = np.arange(COUNT * CLASSES, dtype=np.float32).reshape(COUNT, CLASSES)
    part = Recorded(names, np.zeros((COUNT, 32), np.uint8), outputs)
    path = tmp_path / "reference.npz"
    write_reference(path, facts, lambda: [part])
    return path


def repacked(path: Path, change: Callable[[Members], Any], packed: tuple[str, ...] = ()) -> None:
    """Change a reference's members, and pack some; every CRC is right."""
    with zipfile.ZipFile(path) as archive:
        members = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            method = zipfile.ZIP_DEFLATED if name in packed else zipfile.ZIP_STORED
            archive.writestr(f"{name}.npy", content, method)


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version=(1, 0))
    return file.getvalue()


def text(value: Any) -> bytes:
    return npy(np.frombuffer(json.dumps(value).encode(), np.uint8))


NAMES = [f"{i:03}.png" for i in range(COUNT)]
FAULTS: dict[str, Members] = {
    "a name twice": {"names": text([NAMES[0], *NAMES[:-1]])},
    "a name less": {"names": text(NAMES[:-1])},
    "a name more": {"names": text([*NAMES, "more.png"])},
    "names that are no texts": {"names": text([1] * COUNT)},
    "names that are no list": {"names": text({"a": 1})},
    "names that are no JSON": {"names": npy(np.frombuffer(b"[" * 100_000, np.uint8))},
    "a row less": {"outputs": npy(np.zeros((COUNT - 1, CLASSES), np.float32))},
    "a row more": {"outputs": npy(np.zeros((COUNT + 1, CLASSES), np.float32))},
    "no classes": {"outputs": npy(np.zeros((COUNT, 0), np.float32))},
    "outputs of one dimension": {"outputs": npy(np.zeros(COUNT, np.float32))},
    "outputs of another kind": {"outputs": npy(np.zeros((COUNT, CLASSES)))},
    "a digest less": {"digests": npy(np.zeros((COUNT - 1, 32), np.uint8))},
    "short digests": {"digests": npy(np.zeros((COUNT, 31), np.uint8))},
    "digests without a dimension": {"digests": npy(np.uint8(0))},
    "digests of another kind": {"digests": npy(np.zeros((COUNT, 32), np.int8))},
    "facts that are a list": {"facts": text([])},
    "facts of another schema": {"facts": text({"schema": 99})},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_row_without_its_name_and_numbers(whole: Path, fault: str) -> None:
    repacked(whole, lambda members: members.update(FAULTS[fault]))
    with pytest.raises(ArtefactError, match="no reference of `kedge drift --record`"):
        Reference(whole)


def test_what_is_repacked_as_it_was_is_read(whole: Path) -> None:
    repacked(whole, lambda _: None)
    assert Reference(whole).names == NAMES


@pytest.mark.parametrize("name", ["facts", "names", "digests", "outputs"])
def test_no_member_is_compressed(whole: Path, name: str) -> None:
    """What is stored can't unpack to more than the file's own size."""
    repacked(whole, lambda _: None, (name,))
    with pytest.raises(ArtefactError, match="it is compressed"):
        Reference(whole)


def test_the_last_byte_of_the_outputs_is_checked(whole: Path) -> None:
    content = bytearray(whole.read_bytes())
    last = np.float32(COUNT * CLASSES - 1).tobytes()
    assert content.count(last) == 1
    content[content.index(last) + 3] ^= 1
    whole.write_bytes(content)
    with pytest.raises(ArtefactError, match="Bad CRC-32"):
        Reference(whole)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_not_finite(whole: Path, number: float) -> None:
    outputs = np.zeros((COUNT, CLASSES), np.float32)
    outputs[7, 1] = number
    repacked(whole, lambda members: members.update(outputs=npy(outputs)))
    reference, digest = Reference(whole), np.zeros(32, np.uint8)
    assert not reference.outputs("006.png", digest).any()
    with pytest.raises(ArtefactError, match=r"no outputs for 007\.png"):
        reference.outputs("007.png", digest)


def test_a_file_that_is_cut_while_it_is_read(whole: Path) -> None:
    reference = Reference(whole)
    with whole.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ArtefactError, match=r"no outputs for 999\.png"):
        reference.outputs("999.png", np.zeros(32, np.uint8))


def test_a_file_that_gets_the_name_later_is_not_read(whole: Path, tmp_path: Path) -> None:
    reference = Reference(whole)
    digest = reference.digest
    (tmp_path / "other").write_bytes(bytes(100_000))
    (tmp_path / "other").replace(whole)
    assert reference.outputs("999.png", np.zeros(32, np.uint8)).tolist() == [3996, 3997, 3998, 3999]
    assert reference.digest == digest
