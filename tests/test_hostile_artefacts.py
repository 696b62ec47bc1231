"""Artefacts whose digest is right and whose content is hostile: anybody can seal a file.

Each must end in a typed error of one line, without much memory.
"""

import io
import json
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import MODELS, Run
from kedge_runtime.artefact import containers
from kedge_runtime.artefact.content import digest
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import CONTRACT, GOLDEN, read_artefact
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.errors import ArtefactError, ContractError, about
from kedge_runtime.modelfile.archives import read_arrays, read_members
from kedge_runtime.modelfile.stored import MAX_BYTES

MEMORY = 3 * MAX_BYTES


def _npz(method: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def _npy(header: str, content: bytes = b"", version: bytes = b"\1\0") -> bytes:
    """Return an .npy file with a header that numpy would not write."""
    text = header.encode().ljust(-(10 + len(header) + 1) % 64 + len(header)) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + content


def _header(descr: str = "'<f4'", shape: str = "(2, 4)", fortran: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


ROWS = np.arange(8, dtype=np.float32).tobytes()
ARRAYS: dict[str, tuple[bytes, str]] = {
    "a shape of a terabyte": (_npy(_header(shape="(1000000, 1000000)"), ROWS), "32 bytes for"),
    "a shape beyond 64 bits": (
        _npy(_header(shape="(10**30,)".replace("10**30", "1" + "0" * 30))),
        "bytes for",
    ),
    "less than it says": (_npy(_header(), ROWS[:-1]), "31 bytes for"),
    "more than it says": (_npy(_header(), ROWS + b"x"), "33 bytes for"),
    "a negative shape": (_npy(_header(shape="(-2, -4)"), ROWS), "no readable arrays"),
    "a shape of words": (_npy(_header(shape="('a',)"), ROWS), "no readable arrays"),
    "no shape": (_npy("{'descr': '<f4'}", ROWS), "no readable arrays"),
    "columns first": (_npy(_header(fortran="True"), ROWS), "no readable arrays"),
    "objects": (_npy(_header("'|O'", "(1,)"), pickle.dumps([1])), "no readable arrays"),
    "records of objects": (
        _npy(_header("[('a', '|O')]", "(1,)"), pickle.dumps([1])),
        "no readable arrays",
    ),
    "an unknown type": (_npy(_header("'<q9'"), ROWS), "no readable arrays"),
    "code for a header": (_npy("__import__('os').getpid()", ROWS), "no readable arrays"),
    "brackets without end": (_npy("(" * 9000, ROWS), "no readable arrays"),
    "a version of tomorrow": (_npy(_header(), ROWS, b"\7\0"), "no readable arrays"),
    "no array": (b"words", "no readable arrays"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_hostile_arrays_are_refused(case: str) -> None:
    content, message = ARRAYS[case]
    with pytest.raises(ArtefactError, match=message) as caught, about("here"):
        read_arrays(_npz(a=content))
    assert str(caught.value).startswith("here: ")
    assert "\n" not in str(caught.value)


def test_what_numpy_saves_is_read() -> None:
    arrays = {
        "empty": np.zeros((0, 32), np.uint8),
        "scalar": np.array(1.5),
        "text": np.array(["Straße", "猫"]),
        "numbers": np.arange(24, dtype=np.int16).reshape(2, 3, 4),
    }
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    found = read_arrays(file.getvalue())
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def _archive(change: Callable[[bytearray], Any]) -> io.BytesIO:
    """Return an archive with one member of a thousand zeros, changed in its directory."""
    content = bytearray(_npz(zipfile.ZIP_DEFLATED, a=bytes(1000)))
    change(content)
    return io.BytesIO(content)


def _directory(content: bytearray) -> int:
    return content.index(b"PK\1\2")


def _lie(content: bytearray) -> None:
    content[_directory(content) + 24 : _directory(content) + 28] = (10).to_bytes(4, "little")


def _boast(content: bytearray) -> None:
    content[_directory(content) + 24 : _directory(content) + 28] = b"\xff\xff\xff\x7f"


def _encrypt(content: bytearray) -> None:
    content[6] |= 1
    content[_directory(content) + 8] |= 1


def _repack(method: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[8] = content[_directory(content) + 10] = method

    return change


def _scramble(content: bytearray) -> None:
    content[35:40] = b"\xff" * 5


def _many(_: bytearray) -> None:
    _[:] = _npz(zipfile.ZIP_STORED, **{f"m{i}": b"" for i in range(1001)})


def _bomb(_: bytearray) -> None:
    _[:] = _npz(zipfile.ZIP_DEFLATED, a=bytes(MAX_BYTES + 1))


def _bombs(_: bytearray) -> None:
    _[:] = _npz(zipfile.ZIP_DEFLATED, a=bytes(MAX_BYTES // 2), b=bytes(MAX_BYTES // 2 + 1))


ZIPS = {
    "a size that lies": (_lie, "no readable archive"),
    "a size that boasts": (_boast, "unpacks to 2147483647 bytes"),
    "encrypted": (_encrypt, "no readable archive"),
    "bzip2": (_repack(zipfile.ZIP_BZIP2), "another method than deflate"),
    "lzma": (_repack(zipfile.ZIP_LZMA), "another method than deflate"),
    "an unknown method": (_repack(77), "another method than deflate"),
    "damaged data": (_scramble, "no readable archive"),
    "many members": (_many, "1001 members, allowed are 1000"),
    "a bomb": (_bomb, f"unpacks to {MAX_BYTES + 1} bytes"),
    "bombs in parts": (_bombs, f"unpacks to {MAX_BYTES + 1} bytes"),
}


@pytest.mark.parametrize("case", ZIPS)
def test_hostile_archives_are_refused(case: str) -> None:
    change, message = ZIPS[case]
    with pytest.raises(ArtefactError, match=message) as caught, about("here"):
        read_members(_archive(change))
    assert str(caught.value).startswith("here: ")
    assert "\n" not in str(caught.value)


def _with_golden(golden: Golden, **changes: Any) -> bytes:
    arrays = read_arrays(golden.to_bytes())
    file = io.BytesIO()
    np.savez(file, **{**arrays, **changes})
    return file.getvalue()


GOLDEN_CHANGES: dict[str, dict[str, Any]] = {
    "not a number": {"recorded": np.full((2, 4), np.nan, np.float32)},
    "infinite": {"reference": np.full((2, 4), np.inf, np.float32)},
    "a row too few": {"reference": np.zeros((1, 4), np.float32)},
    "three dimensions": {"recorded": np.zeros((2, 2, 2), np.float32)},
    "text for numbers": {"tensors": np.array([["a"], ["b"]])},
    "a scalar for rows": {"tensors": np.array(3, np.uint8)},
}


@pytest.mark.parametrize("case", GOLDEN_CHANGES)
def test_a_hostile_golden_set_is_refused(case: str, golden: Golden) -> None:
    with pytest.raises(ArtefactError, match="golden set is damaged"):
        Golden.from_bytes(_with_golden(golden, **GOLDEN_CHANGES[case]))


CONTRACTS = {
    "nested without end": b"[" * 200_000,
    "not UTF-8": b'{"schema": 1, "x": "\xff"}',
    "no table": b"[]",
    "nothing": b"",
    "a number of 5000 digits": b'{"schema": ' + b"9" * 5000 + b"}",
    "a large text": b'"' + b"x" * (5 << 20) + b'"',
}


@pytest.mark.parametrize("case", CONTRACTS)
def test_a_sealed_contract_that_is_none_is_refused(
    case: str, form: str, models: dict[str, bytes], golden: Golden, tmp_path: Path
) -> None:
    members = {CONTRACT: CONTRACTS[case], GOLDEN: golden.to_bytes()}
    _refused(form, containers.append(form, models[form], members), tmp_path)


KEYS = {
    "onnx": ("mean", "divisor", "temperature", "crop_fraction"),
    "tflite": ("mean", "divisor", "temperature", "crop_fraction", "scale"),
}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1e400", "1" + "0" * 400, "null", "{}"])
def test_a_sealed_contract_with_hostile_numbers_is_refused(
    value: str,
    form: str,
    contracts: dict[str, Contract],
    models: dict[str, bytes],
    golden: Golden,
    tmp_path: Path,
) -> None:
    for key in KEYS[form]:
        text = _with_number(contracts[form].to_json(), key, value)
        members = {CONTRACT: text.encode(), GOLDEN: golden.to_bytes()}
        _refused(form, containers.append(form, models[form], members), tmp_path)


def _with_number(text: str, key: str, value: str) -> str:
    """Return the contract with a hostile value for one key, or for the first item of its list."""
    before, after = text.split(f'"{key}":', 1)
    if after[0] == "[":
        return f'{before}"{key}":[{value}{after[after.index(",") :]}'
    return f'{before}"{key}":{value}{after[_end(after) :]}'


def _end(text: str) -> int:
    """Return where the number that the text begins with ends."""
    return min(text.index(end) for end in ",}" if end in text)


def _refused(form: str, content: bytes, folder: Path) -> None:
    path = folder / f"hostile.{form}"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises((ArtefactError, ContractError)) as caught:
            _ = read_artefact(path).golden
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert peak < MEMORY


def test_a_sealed_bomb_is_refused(
    form: str, models: dict[str, bytes], contracts: dict[str, Contract], tmp_path: Path
) -> None:
    bomb = _npz(zipfile.ZIP_DEFLATED, tensors=bytes(MAX_BYTES + 1))
    members = {CONTRACT: contracts[form].to_json().encode(), GOLDEN: bomb}
    _refused(form, containers.append(form, models[form], members), tmp_path)


def test_a_member_that_is_missing_is_refused(
    form: str, models: dict[str, bytes], golden: Golden, tmp_path: Path
) -> None:
    members = {GOLDEN: golden.to_bytes()}
    _refused(form, containers.append(form, models[form], members), tmp_path)


def _resealed(body: bytes) -> bytes:
    return body + digest(body)


WIRES = {
    "a number without end": b"\xff" * (1 << 20),
    "a length beyond the file": b"\x72\xff\xff\xff\xff\x0f",
    "a length beyond 64 bits": b"\x72" + b"\xff" * 20 + b"\x01",
    "an unknown wire type": b"\x77\x00",
    "an entry without a value": b"\x72\x03\x0a\x01a",
    "an entry that isn't UTF-8": b"\x72\x06\x0a\x01\xff\x12\x01a",
}


@pytest.mark.parametrize("case", WIRES)
def test_hostile_protocol_buffers_are_refused(case: str, tmp_path: Path) -> None:
    _refused("onnx", _resealed(WIRES[case]), tmp_path)


@pytest.mark.parametrize("back", [1, 1000, 1 << 31])
def test_offsets_before_the_file_are_no_archive(tmp_path: Path, back: int) -> None:
    """In a file such an offset is an OSError of seek, in memory a ValueError."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("labels.txt", "a")
    content = bytearray(file.getvalue())
    end = content.rindex(b"PK\5\6")
    content[end + 16 : end + 20] = (len(content) + back & 0xFFFFFFFF).to_bytes(4, "little")
    (tmp_path / "m.zip").write_bytes(content)
    for given in (tmp_path / "m.zip", io.BytesIO(content)):
        with pytest.raises(ArtefactError, match=r"^m.zip: no readable archive"), about("m.zip"):
            read_members(given)


@pytest.mark.parametrize("dtype", ["float32", "float16", None])
def test_a_float_tensor_takes_no_quantisation(contracts: dict[str, Contract], dtype: str) -> None:
    stated = json.loads(contracts["tflite"].to_json())
    for end in ("input", "output"):
        tensor = {"quantisation": {"scale": 0.1, "zero_point": 1}} | (
            {"dtype": dtype} if dtype else {}
        )
        hostile = json.dumps({**stated, end: {**stated[end], "tensor": tensor}})
        with pytest.raises(ContractError, match="takes no quantisation: leave it out, or state"):
            Contract.from_json(hostile)


@pytest.mark.parametrize("kind", ["contract-traceback", "metadata-traceback"])
def test_known_hostile_files_are_one_line(
    shared: Path, kind: str, artefacts: Path, pictures: Path, kedge: Run
) -> None:
    found = sorted((shared / "data" / "hostile").glob(f"{kind}-*"))
    assert found
    for path in found:
        model = artefacts.parent / "raw.tflite"
        model.write_bytes((MODELS / "tiny.tflite").read_bytes())
        words = [path] if path.suffix == ".tflite" else [model, "--contract", path]
        code, out, err = kedge("classify", *words, pictures)
        assert (code, out, err.count("\n")) == (2, "", 1)
