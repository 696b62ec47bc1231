"""Both containers: members come back, other tools read them too, and the seal is plain SHA-256."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from kedge_runtime.artefact import containers
from kedge_runtime.artefact.containers import FORMATS, append
from kedge_runtime.artefact.content import DIGEST_BYTES, digest, read_content
from kedge_runtime.errors import ArtefactError
from kedge_runtime.modelfile.archives import read_members
from kedge_runtime.modelfile.stored import stored_members

JSON, BINARY = "kedge/contract.json", "kedge/golden.npz"
MEMBERS = {JSON: '{"name":"Köln"}'.encode(), BINARY: bytes(range(256)) * 300}
# The lengths around which a varint grows by a byte.
LENGTHS = [0, 1, 100, 127, 128, 16_383, 16_384, 70_000]


def test_the_digest_is_71_bytes_of_ascii() -> None:
    assert DIGEST_BYTES == 71
    assert digest(b"abc") == b"sha256:" + hashlib.sha256(b"abc").hexdigest().encode()
    assert digest(b"abc").isascii()


def test_members_come_back(form: str, models: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / f"m.{form}"
    path.write_bytes(append(form, models[form], MEMBERS))
    found = FORMATS[form].read(read_content(path, form))
    assert {name: found[name] for name in MEMBERS} == MEMBERS


@pytest.mark.parametrize("length", LENGTHS)
def test_members_of_any_length_come_back(form: str, length: int, tmp_path: Path) -> None:
    members = {JSON: b"x" * length, BINARY: b"\xff" * length}
    path = tmp_path / f"m.{form}"
    path.write_bytes(append(form, b"", members))
    found = FORMATS[form].read(read_content(path, form))
    assert {name: found[name] for name in members} == members


def test_the_same_members_give_the_same_bytes_after_the_model(
    form: str, models: dict[str, bytes]
) -> None:
    first, second = (append(form, models[form], dict(MEMBERS)) for _ in range(2))
    assert first == second
    assert first.startswith(models[form])


def test_the_last_71_bytes_are_the_digest_of_all_before(
    form: str, models: dict[str, bytes]
) -> None:
    sealed = append(form, models[form], MEMBERS)
    stated = hashlib.sha256(sealed[:-71]).hexdigest()
    assert sealed[-71:] == f"sha256:{stated}".encode("ascii")


def test_formats_are_twins() -> None:
    for module in FORMATS.values():
        assert callable(module.tail)
        assert callable(module.split)
        assert callable(module.read)
    assert list(FORMATS) == ["tflite", "onnx"]
    assert containers.FORMATS is FORMATS


def test_any_zip_reader_opens_the_tflite(models: dict[str, bytes]) -> None:
    sealed = append("tflite", models["tflite"], MEMBERS)
    with zipfile.ZipFile(io.BytesIO(sealed)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == MEMBERS
        assert archive.comment == sealed[-71:]
        assert {info.date_time[0] for info in archive.infolist()} == {1980}


def test_an_implausibly_large_member_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("archives", "stored"):
        monkeypatch.setattr(f"kedge_runtime.modelfile.{module}.MAX_BYTES", 1000)
    path = tmp_path / "m.tflite"
    path.write_bytes(append("tflite", b"", {JSON: bytes(1001)}))
    with pytest.raises(ArtefactError, match="unpacks to 1001 bytes, allowed are 1000"):
        FORMATS["tflite"].read(read_content(path, "tflite"))


def test_the_onnx_package_reads_the_members(models: dict[str, bytes]) -> None:
    onnx = pytest.importorskip("onnx")
    import base64

    sealed = append("onnx", models["onnx"], MEMBERS)
    model = onnx.load_from_string(sealed)
    onnx.checker.check_model(model)
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert list(found) == [*MEMBERS, "kedge/digest"]
    assert found[JSON].encode() == MEMBERS[JSON]
    assert base64.b64decode(found[BINARY]) == MEMBERS[BINARY]
    assert found["kedge/digest"].encode() == sealed[-71:]
    assert model.graph == onnx.load_from_string(models["onnx"]).graph


def test_onnxruntime_reads_the_members(models: dict[str, bytes]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    sealed = append("onnx", models["onnx"], MEMBERS)
    session = onnxruntime.InferenceSession(sealed, providers=["CPUExecutionProvider"])
    found = session.get_modelmeta().custom_metadata_map
    assert found[JSON].encode() == MEMBERS[JSON]
    assert found["kedge/digest"].encode() == sealed[-71:]


def test_metadata_that_the_model_had_before_is_left_out(
    models: dict[str, bytes], tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(models["onnx"])
    model.metadata_props.add(key="author", value="somebody")
    path = tmp_path / "m.onnx"
    path.write_bytes(append("onnx", model.SerializeToString(), MEMBERS))
    assert set(FORMATS["onnx"].read(read_content(path, "onnx"))) == {*MEMBERS, "kedge/digest"}


def test_stored_members_are_those_that_zipfile_reads() -> None:
    sealed = append("tflite", b"model", MEMBERS)
    assert stored_members(sealed, DIGEST_BYTES) == MEMBERS


def test_a_damaged_archive_is_left_to_zipfile() -> None:
    """Of an archive with any byte changed, the members are those of zipfile, or none."""
    sealed = append("tflite", b"model", {JSON: b"{}", "labels.txt": b"a\nb\n"})
    left = 0
    for place in range(len(sealed) - DIGEST_BYTES):
        changed = sealed[:place] + bytes([sealed[place] ^ 0x41]) + sealed[place + 1 :]
        found = stored_members(changed, DIGEST_BYTES)
        left += found is None
        if found is not None:
            assert read_members(io.BytesIO(changed)) == found, place
    assert left > 100


def test_a_compressed_archive_is_left_to_zipfile() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", "words " * 99)
        archive.comment = bytes(DIGEST_BYTES)
    assert stored_members(file.getvalue(), DIGEST_BYTES) is None
