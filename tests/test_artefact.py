"""The sealed file: what was sealed is read, and any change whatever is refused in one way."""

import hashlib
import os
import shlex
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from conftest import Run
from kedge_runtime.artefact import containers
from kedge_runtime.artefact.content import ModelContent, format_of
from kedge_runtime.artefact.contract import Contract, Label
from kedge_runtime.artefact.file import CONTRACT, GOLDEN, is_sealed, read_artefact, seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.errors import ArtefactError, ContractError


def test_what_was_sealed_is_read(
    form: str, artefacts: Path, contracts: dict[str, Contract], golden: Golden
) -> None:
    path = artefacts / f"tiny.{form}"
    artefact = read_artefact(path)
    assert (artefact.path, artefact.contract) == (path, contracts[form])
    assert artefact.golden.images == golden.images
    for name in ("tensors", "reference", "recorded"):
        found, given = getattr(artefact.golden, name), getattr(golden, name)
        assert found.dtype == given.dtype
        np.testing.assert_array_equal(found, given)
    content = path.read_bytes()
    assert artefact.digest == "sha256:" + hashlib.sha256(content[:-71]).hexdigest()


def test_sealing_twice_gives_the_same_bytes(
    form: str, artefacts: Path, contracts: dict[str, Contract], models: dict[str, bytes]
) -> None:
    first = read_artefact(artefacts / f"tiny.{form}")
    again = seal(form, models[form], first.contract, first.golden)
    assert again == (artefacts / f"tiny.{form}").read_bytes()


def test_head_and_sha256sum_check_a_seal_by_hand(form: str, artefacts: Path) -> None:
    path = artefacts / f"tiny.{form}"
    command = 'head -c -71 "$1" | sha256sum | cut -d " " -f 1 && tail -c 71 "$1"'
    done = subprocess.run(["sh", "-c", command, "sh", path], capture_output=True, text=True)
    if done.returncode or not done.stdout:
        pytest.skip("no GNU coreutils here")
    by_hand, stated = done.stdout.splitlines()
    assert f"sha256:{by_hand}" == stated == read_artefact(path).digest


def _mutations(content: bytes, seed: int) -> list[bytes]:
    """Return 300 changed copies: bit flips over the whole file, cuts, and bytes added or lost."""
    generator = np.random.default_rng(seed)
    size, changed = len(content), []
    for position in [*generator.integers(0, size, 170), *range(size - 80, size)]:
        copy = bytearray(content)
        copy[position] ^= 1 << generator.integers(8)
        changed.append(bytes(copy))
    changed += [content[:end] for end in generator.integers(0, size, 25)]
    changed += [content + bytes([byte]) for byte in generator.integers(0, 256, 15)]
    for position in generator.integers(0, size, 10):
        changed.append(content[:position] + content[position + 1 :])
    return [copy for copy in changed if copy != content]


def test_every_change_to_a_sealed_file_is_refused(
    form: str, artefacts: Path, tmp_path: Path
) -> None:
    content = (artefacts / f"tiny.{form}").read_bytes()
    path = tmp_path / f"m.{form}"
    for changed in _mutations(content, seed=7):
        path.write_bytes(changed)
        with pytest.raises((ArtefactError, ContractError)):
            read_artefact(path)


def test_labels_swapped_by_writing_the_zip_again_are_refused(
    artefacts: Path, models: dict[str, bytes], tmp_path: Path
) -> None:
    original = artefacts / "tiny.tflite"
    with zipfile.ZipFile(original) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
        comment = archive.comment
    swapped = members[CONTRACT].replace(b'"red"', b'"xxx"').replace(b'"blue"', b'"red"')
    assert swapped != members[CONTRACT]
    path = tmp_path / "m.tflite"
    path.write_bytes(models["tflite"])
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CONTRACT, swapped)
        archive.writestr(GOLDEN, members[GOLDEN])
        archive.comment = comment
    with pytest.raises(ArtefactError, match="changed since it was sealed"):
        read_artefact(path)


def test_labels_swapped_in_an_onnx_of_the_same_length_are_refused(
    artefacts: Path, tmp_path: Path
) -> None:
    content = (artefacts / "tiny.onnx").read_bytes()
    path = tmp_path / "m.onnx"
    path.write_bytes(content.replace(b'"red"', b'"der"'))
    with pytest.raises(ArtefactError, match="changed since it was sealed"):
        read_artefact(path)


def test_two_sealed_files_joined_are_refused(artefacts: Path, form: str, tmp_path: Path) -> None:
    content = (artefacts / f"tiny.{form}").read_bytes()
    path = tmp_path / f"m.{form}"
    path.write_bytes(content + content)
    with pytest.raises(ArtefactError, match="changed since it was sealed"):
        read_artefact(path)


NO_ARTEFACTS = {
    "empty": (b"", "carries no kedge seal"),
    "shorter than a digest": (b"x" * 70, "carries no kedge seal"),
    "as long as a digest": (b"x" * 71, "carries no kedge seal"),
    "text": (b"words\n" * 100, "carries no kedge seal"),
    "only the seal": (b"sha256:" + hashlib.sha256(b"").hexdigest().encode(), "no readable"),
    "a right seal over nothing of ours": (
        b"junk" * 9 + b"sha256:" + hashlib.sha256(b"junk" * 9).hexdigest().encode(),
        "no readable",
    ),
    "capital digits": (
        b"sha256:" + hashlib.sha256(b"").hexdigest().upper().encode(),
        "carries no kedge seal",
    ),
}


@pytest.mark.parametrize("case", NO_ARTEFACTS)
def test_what_was_never_sealed_is_refused(form: str, case: str, tmp_path: Path) -> None:
    content, message = NO_ARTEFACTS[case]
    path = tmp_path / f"m.{form}"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=message):
        read_artefact(path)


def test_an_unsealed_model_is_refused(form: str, models: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / f"m.{form}"
    path.write_bytes(models[form])
    remedies = (
        r"by `kedge convert` \(`kedge seal` gives it one; classify and bench take --contract\)$"
    )
    with pytest.raises(ArtefactError, match=rf"^{path}: carries no kedge seal: .*{remedies}"):
        read_artefact(path)


@pytest.mark.parametrize("name", ["m.bin", "m", "m.tflite.bak", "tflite"])
def test_another_suffix_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ArtefactError, match=r"artefacts end in \.tflite, \.onnx"):
        read_artefact(tmp_path / name)


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.pb", "model.json", "my graph"])
@pytest.mark.parametrize("command", ["seal", "verify", "inspect"])
def test_a_model_that_is_not_converted_points_to_convert(
    name: str, command: str, tmp_path: Path, kedge: Run
) -> None:
    path = tmp_path / name
    if path.suffix:
        path.write_bytes(b"x")
    else:
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"x")
    code, out, err = kedge(command, path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"isn't converted yet: `{shlex.join(['kedge', 'convert', str(path)])}`" in err


def test_a_rejected_file_is_named(form: str, artefacts: Path, tmp_path: Path, kedge: Run) -> None:
    rejected = tmp_path / f"tiny.{form}.rejected"
    shutil.copy(artefacts / f"tiny.{form}", rejected)
    for path in (rejected, tmp_path / f"tiny.{form}"):
        code, _, err = kedge("verify", path)
        assert (code, err.count("\n")) == (2, 1)
        assert "missed a limit of `kedge convert`" in err
        assert (f"no such file; {rejected.name} beside it" in err) == (path != rejected)
    shutil.copy(rejected, tmp_path / f"look.{form}")  # as the line advises
    assert kedge("inspect", tmp_path / f"look.{form}")[0] == 0


def test_a_missing_file_and_a_folder_are_refused(form: str, tmp_path: Path) -> None:
    (tmp_path / f"folder.{form}").mkdir()
    for name in ("missing", "folder"):
        with pytest.raises(ArtefactError, match="no such file"):
            read_artefact(tmp_path / f"{name}.{form}")


def test_a_suffix_in_capitals_is_read(form: str, artefacts: Path, tmp_path: Path) -> None:
    path = tmp_path / f"M.{form.upper()}"
    path.write_bytes((artefacts / f"tiny.{form}").read_bytes())
    assert read_artefact(path).contract.labels[0].name == "red"


def test_a_file_that_may_not_be_read_is_refused_in_one_line(
    form: str, artefacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    path = artefacts / f"tiny.{form}"
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        for read in (read_artefact, is_sealed):
            with pytest.raises(ArtefactError, match="permission denied"):
                read(path)


def test_a_name_that_the_system_refuses_is_one_line(form: str) -> None:
    with pytest.raises(ArtefactError, match="file name too long"):
        format_of(Path(f"{'x' * 300}.{form}"))


def test_a_right_seal_over_a_contract_of_tomorrow_is_refused(
    form: str,
    contracts: dict[str, Contract],
    models: dict[str, bytes],
    golden: Golden,
    tmp_path: Path,
) -> None:
    path = tmp_path / f"m.{form}"
    path.write_bytes(seal(form, models[form], replace(contracts[form], schema=4), golden))
    with pytest.raises(ContractError, match="has schema 4"):
        read_artefact(path)


def test_a_seal_covers_labels_of_any_script(
    form: str,
    contracts: dict[str, Contract],
    models: dict[str, bytes],
    golden: Golden,
    tmp_path: Path,
) -> None:
    labels = tuple(Label(str(i), name) for i, name in enumerate(("猫", "Straße", "a  b", '"')))
    path = tmp_path / f"m.{form}"
    path.write_bytes(seal(form, models[form], replace(contracts[form], labels=labels), golden))
    assert read_artefact(path).contract.labels == labels


def test_other_programs_find_a_line_for_each_output(
    form: str, contracts: dict[str, Contract], models: dict[str, bytes], golden: Golden
) -> None:
    names = ("great  white shark", "猫")
    labels = tuple(Label(str(i), name) for i, name in enumerate(names))
    output = replace(contracts[form].output, label_offset=1)
    contract = replace(contracts[form], labels=labels, output=output)
    found = _members(form, seal(form, models[form], contract, golden))
    lines = {"labels.txt": "background\ngreat white shark\n猫\n".encode()}
    assert found == (lines if form == "tflite" else {})
    unnamed = seal(form, models[form], replace(contract, labels=()), golden)
    assert _members(form, unnamed) == {}


def _members(form: str, sealed: bytes) -> dict[str, bytes]:
    """Return what a sealed file carries beside kedge's own."""
    found = containers.FORMATS[form].read(ModelContent(Path("m"), form, sealed))
    return {name: found[name] for name in found if not name.startswith("kedge/")}


def test_a_name_of_any_bytes_is_sealed_and_read(
    form: str,
    contracts: dict[str, Contract],
    models: dict[str, bytes],
    golden: Golden,
    tmp_path: Path,
) -> None:
    provenance = replace(contracts[form].provenance, source=os.fsdecode(b"caf\xe9.keras"))
    contract = replace(contracts[form], provenance=provenance)
    path = tmp_path / f"m.{form}"
    path.write_bytes(seal(form, models[form], contract, golden))
    assert read_artefact(path).contract == contract


DAMAGED_GOLDEN = {
    "empty": b"",
    "text": b"words",
    "a zip cut short": b"PK\x03\x04" + bytes(30),
    "a lone array": b"\x93NUMPY\x01\x00",
}


@pytest.mark.parametrize("case", DAMAGED_GOLDEN)
def test_a_damaged_golden_set_is_refused(case: str) -> None:
    with pytest.raises(ArtefactError, match="golden set is damaged"):
        Golden.from_bytes(DAMAGED_GOLDEN[case])


def test_a_golden_set_cut_anywhere_is_refused(golden: Golden) -> None:
    content = golden.to_bytes()
    for end in range(0, len(content), 37):
        with pytest.raises(ArtefactError, match="golden set is damaged"):
            Golden.from_bytes(content[:end])
