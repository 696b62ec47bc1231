"""A model file's bytes: what is read, up to which bound, and what each refusal says of the file."""

import os
import re
import shlex
from pathlib import Path

import pytest

from kedge_runtime.artefact.content import format_of, open_plain, read_content, trust_of
from kedge_runtime.artefact.file import is_sealed, read_artefact
from kedge_runtime.artefact.signing import PublicKey, Trust
from kedge_runtime.errors import ArtefactError, SignatureError, UsageError

LONG = "x" * 300  # no system allows a name of so many bytes


def test_a_file_is_read_whole_with_its_name_and_format(sealed_file: Path) -> None:
    content = read_content(sealed_file)
    assert (content.path, content.format) == (sealed_file, sealed_file.suffix[1:])
    assert content.data == sealed_file.read_bytes()
    assert content.sealed


def test_a_format_that_is_given_goes_before_the_suffix(sealed_file: Path, form: str) -> None:
    before = read_artefact(sealed_file)
    plain = sealed_file.rename(sealed_file.with_suffix(".keras"))
    assert read_content(plain, form).format == form
    assert read_artefact(plain, form).contract == before.contract


def test_a_file_is_read_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kedge_runtime.artefact.content.MAX_BYTES", 100)
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes(100))
    assert read_content(path).data == bytes(100)
    path.write_bytes(bytes(101))
    message = f"{path}: 101 bytes, allowed are 100; no .onnx file is that large"
    with pytest.raises(ArtefactError, match=f"^{re.escape(message)}$"):
        read_content(path)


def test_a_demanded_signature_is_looked_for(form: str, artefacts: Path) -> None:
    path, trust = artefacts / f"tiny.{form}", Trust(PublicKey(bytes(32)))
    for read in (read_content, read_artefact):
        with pytest.raises(SignatureError, match=f"^{path}: carries no signature"):
            read(path, trust=trust)


def test_no_key_demands_nothing_and_a_serial_number_alone_is_refused(tmp_path: Path) -> None:
    assert trust_of(None, 0) is None
    with pytest.raises(UsageError, match="--min-serial: needs --key"):
        trust_of(None, 1)
    for serial in (0, 7):
        with pytest.raises(UsageError, match=r"none.pub: no such file|install cryptography"):
            trust_of(tmp_path / "none.pub", serial)


def test_a_key_and_a_serial_number_are_demanded_together(key_pair: Path) -> None:
    public = key_pair.with_suffix(".pub")
    for serial in (0, 7):
        trust = trust_of(public, serial)
        assert trust
        assert (trust.min_serial, len(trust.key.raw)) == (serial, 32)


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    os.mkfifo(path)
    with pytest.raises(OSError, match=r"a pipe, a socket or a device; give a file") as caught:
        open_plain(path)
    assert caught.value.filename == str(path)
    for read in (lambda path: read_content(path, "onnx"), is_sealed):
        with pytest.raises(ArtefactError, match=f"^{path}: a pipe, a socket or a device; give"):
            read(path)
    with pytest.raises(ArtefactError, match=f"^{path}: no such file$"):
        format_of(path)


def test_what_the_system_says_is_said_of_the_file(tmp_path: Path) -> None:
    none = tmp_path / "none.onnx"
    for read in (lambda path: read_content(path, "onnx"), is_sealed):
        with pytest.raises(ArtefactError, match=f"^{none}: no such file or directory$"):
            read(none)
    # A name that is looked up for its suffix, for its rejected twin, and in vain.
    for name in (f"{LONG}.onnx", f"{'x' * 245}.onnx", f"{LONG}.keras", f"{LONG}.rejected"):
        path = tmp_path / name
        with pytest.raises(ArtefactError, match=f"^{path}: file name too long$"):
            format_of(path)


def test_formats_follow_the_suffix_in_any_case(tmp_path: Path) -> None:
    for name in ("a.tflite", "b.TFLite", "c.onnx", "d.ONNX"):
        (tmp_path / name).write_bytes(b"")
        assert format_of(tmp_path / name) == name[2:].lower()


def test_the_refusal_of_another_file_says_what_to_do(tmp_path: Path) -> None:
    """A model is converted, a rejected file explained, and anything else told what is allowed."""
    (tmp_path / "net.KERAS").write_bytes(b"x")
    (tmp_path / "words.txt").write_bytes(b"x")
    (tmp_path / "m.onnx.rejected").write_bytes(b"x")
    (tmp_path / "folder.rejected").mkdir()
    convert = f"`{shlex.join(['kedge', 'convert', str(tmp_path / 'net.KERAS')])}` makes artefacts"
    endings = "artefacts end in .tflite, .onnx"
    said = {
        "net.KERAS": f"a model that isn't converted yet: {convert} of it",
        "words.txt": endings,
        "none.keras": endings,
        "none.rejected": endings,
        "folder.rejected": endings,
        "m.onnx.rejected": "missed a limit of `kedge convert`",
        "m.onnx": "no such file; m.onnx.rejected beside it missed a limit",
    }
    for name, words in said.items():
        with pytest.raises(ArtefactError, match=f"^{re.escape(f'{tmp_path / name}: {words}')}"):
            format_of(tmp_path / name)
    with pytest.raises(ArtefactError, match=r"none.onnx: no such file$"):
        format_of(tmp_path / "none.onnx")


def test_a_seal_is_looked_for_at_the_end_of_a_file_of_any_length(
    sealed_file: Path, form: str, models: dict[str, bytes], tmp_path: Path
) -> None:
    sealed = sealed_file.read_bytes()
    path = tmp_path / "m.bin"
    for content, expected in (
        (sealed, True),
        (sealed[-71:], True),
        (sealed[-70:], False),
        (sealed[:-1], False),
        (sealed + b"x", False),
        (models[form], False),
        (b"", False),
    ):
        path.write_bytes(content)
        assert is_sealed(path) == expected
