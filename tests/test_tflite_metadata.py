"""TFLite Metadata, written and read back; what it can't express; and that the seal covers it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_convert.export import flatbuffer
from kedge_convert.export.formats import FORMATS
from kedge_convert.export.tflite import describe
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Contract, Quantisation, Tensor
from kedge_runtime.artefact.file import read_artefact, seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.errors import ArtefactError, KedgeError
from kedge_runtime.image.pipelines import NORMALISATIONS
from kedge_runtime.image.preprocessing import table
from kedge_runtime.modelfile import tflite_metadata
from kedge_runtime.modelfile.archives import read_members

pytest.importorskip("flatbuffers")
pytest.importorskip("ai_edge_litert")

UINT8 = Tensor("uint8", Quantisation(1 / 127.5, 128))


def with_input(contract: Contract, mode: str, tensor: Tensor | None = None) -> Contract:
    taken = replace(contract.input, normalisation=NORMALISATIONS[mode])
    return replace(contract, input=replace(taken, tensor=tensor or taken.tensor))


@pytest.fixture
def contract(contracts: dict[str, Contract]) -> Contract:
    return contracts["tflite"]


@pytest.fixture
def model(models: dict[str, bytes]) -> bytes:
    return models["tflite"]


@pytest.mark.parametrize("mode", ["tf", "torch", "raw"])
def test_what_is_written_is_read_back(
    mode: str, model: bytes, contract: Contract, tmp_path: Path
) -> None:
    path = tmp_path / "m.tflite"
    contract = with_input(contract, mode)
    path.write_bytes(describe(model, contract).content)
    found = tflite_metadata.read(read_content(path))
    assert found.labels == "labels.txt"
    assert found.normalisation is not None
    read, written = (table(n, Tensor()) for n in (found.normalisation, NORMALISATIONS[mode]))
    np.testing.assert_allclose(read, written, rtol=1e-5, atol=1e-6)


# Which inputs can be said in TFLite Metadata, by mode and tensor.
SAYABLE: dict[str, tuple[str, Tensor, str]] = {
    "float": ("torch", Tensor(), ""),
    "bgr": ("caffe", Tensor(), "no BGR"),
    "uint8, bytes as they are": ("tf", UINT8, ""),
    "uint8, half a step off": ("tf", Tensor("uint8", Quantisation(1 / 127.5, 127)), ""),
    "uint8, the bytes themselves": ("raw", Tensor("uint8", Quantisation(1.0, 0)), ""),
    "uint8, a scale for three channels": ("torch", UINT8, "this model wants others"),
    "uint8, another range": ("raw", UINT8, "this model wants others"),
}


@pytest.mark.parametrize("case", SAYABLE)
def test_what_cannot_be_said_is_left_out_with_the_reason(
    case: str, model: bytes, contract: Contract
) -> None:
    mode, tensor, reason = SAYABLE[case]
    made = describe(model, with_input(contract, mode, tensor))
    assert (made.content == model) == bool(reason)
    assert all(reason in note and note.startswith("no TFLite Metadata: ") for note in made.notes)
    assert bool(made.notes) == bool(reason)


def test_the_graph_stays_as_it_was_and_writing_twice_is_writing_once(
    model: bytes, contract: Contract
) -> None:
    once = describe(model, contract).content
    assert describe(once, contract).content == once
    before, after = (flatbuffer.unpack(each) for each in (model, once))
    for name in ("subgraphs", "operatorCodes"):
        assert _plain(getattr(before, name)) == _plain(getattr(after, name))
    assert len(once) - len(model) < 1500


def _plain(value: Any) -> Any:
    """Return objects of the schema as nested lists, to compare."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return {k: _plain(v) for k, v in vars(value).items()} if hasattr(value, "__dict__") else value


def test_onnx_stays_as_it_is(models: dict[str, bytes], contracts: dict[str, Contract]) -> None:
    made = FORMATS["onnx"].describe(models["onnx"], contracts["onnx"])
    assert (made.content, made.notes) == (models["onnx"], ())


def test_labels_have_a_line_per_output(contract: Contract, model: bytes, tmp_path: Path) -> None:
    for offset, lines in {0: b"red\ngreen\nblue\ndark\n", 1: b"background\nred\ngreen\n"}.items():
        labels = contract.labels[: 4 - 2 * offset]
        output = replace(contract.output, label_offset=offset)
        sealed = seal(
            "tflite", model, replace(contract, labels=labels, output=output), Golden.none()
        )
        path = tmp_path / f"{offset}.tflite"
        path.write_bytes(sealed)
        assert read_members(path)["labels.txt"] == lines


@pytest.mark.parametrize("what", [b"M001", b"an RGB picture", b"red\ngreen\n"])
def test_the_seal_covers_metadata_and_labels(
    what: bytes, model: bytes, contract: Contract, golden: Golden, tmp_path: Path
) -> None:
    path = tmp_path / "m.tflite"
    sealed = seal("tflite", describe(model, contract).content, contract, golden)
    path.write_bytes(sealed)
    assert read_artefact(path).contract == contract
    assert sealed.count(what) == 1
    path.write_bytes(sealed.replace(what, what[:-1] + b"!"))
    with pytest.raises(ArtefactError, match="changed since it was sealed"):
        read_artefact(path)


def test_a_file_without_metadata_says_nothing(model: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(model)
    assert tflite_metadata.read(read_content(path)) == tflite_metadata.Metadata()


def test_damaged_metadata_ends_in_one_line(
    model: bytes, contract: Contract, tmp_path: Path
) -> None:
    """Every byte of the metadata is set to each of three values."""
    content = describe(model, contract).content
    start = content.index(b"M001") - 4
    path = tmp_path / "m.tflite"
    refused = 0
    for at in range(start, start + 500):
        for value in (0, 0x7F, 0xFF):
            path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
            try:
                tflite_metadata.read(read_content(path))
            except KedgeError as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused > 100
