"""Signed files: what was signed is accepted, and any other file is refused before it is parsed."""

import base64
import hashlib
import random
import re
import shlex
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import click
import pytest

from kedge_runtime.artefact import containers
from kedge_runtime.artefact import file as artefact_module
from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.artefact.file import read_artefact, seal
from kedge_runtime.artefact.signing import (
    BLOCK_BYTES,
    DOMAIN,
    TAIL_BYTES,
    PrivateKey,
    Signature,
    Trust,
    generate,
    message,
    read_private,
    read_public,
    signature_of,
    signed,
    write_pair,
)
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.cli import kedge as cli
from kedge_runtime.errors import ArtefactError, SignatureError
from tampering import KINDS, SERIAL, Others, content_of, resealed

# The library is what devices may lack; without it there is nothing to test here.
pytest.importorskip("cryptography", reason="signatures need keras-kedge[signing]")

TAMPERED = 500  # of each format


@pytest.fixture(scope="module")
def other() -> PrivateKey:
    return generate()


def test_a_signed_file_is_as_good_as_before(
    sealed_file: Path, signing_key: PrivateKey, models: dict[str, bytes]
) -> None:
    before = read_artefact(sealed_file)
    sealed_file.write_bytes(signed(content_of(sealed_file), signing_key, SERIAL))
    trust = Trust(signing_key.public, SERIAL)
    assert trust.check(content_of(sealed_file)).serial == SERIAL
    after = read_artefact(sealed_file, trust=trust)
    assert after.contract == before.contract
    assert after.golden.to_bytes() == before.golden.to_bytes()
    assert sealed_file.read_bytes().startswith(models[sealed_file.suffix[1:]])
    assert Classifier.open(sealed_file).contract == before.contract


def test_the_ends_of_a_signed_file_are_where_the_document_says(
    sealed_file: Path, signing_key: PrivateKey
) -> None:
    data = signed(content_of(sealed_file), signing_key, SERIAL)
    assert (BLOCK_BYTES, TAIL_BYTES) == (125, 196)
    assert data[-71:] == b"sha256:" + hashlib.sha256(data[:-71]).hexdigest().encode()
    kind, key_id, serial, value, rest = data[-196:-71].split(b":")
    assert (kind, serial, rest) == (b"ed25519", b"0000000007", b"")
    assert (
        key_id.decode()
        == signing_key.public.id
        == hashlib.sha256(signing_key.public.raw).hexdigest()[:16]
    )
    assert len(base64.b64decode(value, validate=True)) == 64


def test_signing_again_replaces(
    sealed_file: Path, signing_key: PrivateKey, other: PrivateKey
) -> None:
    once = signed(content_of(sealed_file), signing_key, SERIAL)
    twice = signed(
        content_of(sealed_file, signed(content_of(sealed_file), other, 99)), signing_key, SERIAL
    )
    assert once == twice


def test_other_readers_open_a_signed_file(
    artefacts: Path, signing_key: PrivateKey, tmp_path: Path
) -> None:
    path = Path(shutil.copy(artefacts / "tiny.tflite", tmp_path))
    path.write_bytes(signed(content_of(path), signing_key, SERIAL))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment == path.read_bytes()[-TAIL_BYTES:]
    onnx = pytest.importorskip("onnx")
    path = Path(shutil.copy(artefacts / "tiny.onnx", tmp_path))
    path.write_bytes(signed(content_of(path), signing_key, SERIAL))
    entry = onnx.load(path).metadata_props[-1]
    assert entry.key == "kedge/digest"
    assert entry.value.encode() == path.read_bytes()[-TAIL_BYTES:]


def test_openssl_finds_the_signature_right(
    sealed_file: Path, key_pair: Path, signing_key: PrivateKey
) -> None:
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("no openssl")
    data = signed(content_of(sealed_file), signing_key, SERIAL)
    body, block = data[:-196], data[-196:-71]
    text, value = key_pair.with_name("message"), key_pair.with_name("value")
    # By hand, as docs/signing.md has it: nothing of kedge takes part.
    text.write_bytes(b"kedge-signature-v1\n" + hashlib.sha256(body).digest() + block[25:35])
    value.write_bytes(base64.b64decode(block[36:124]))
    command = [openssl, "pkeyutl", "-verify", "-pubin", "-rawin", "-inkey", f"{key_pair}.pub"]
    command += ["-in", str(text), "-sigfile", str(value)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    text.write_bytes(text.read_bytes()[:-1] + b"8")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_the_document_checks_a_signature_without_kedge(
    sealed_file: Path, signing_key: PrivateKey, tmp_path: Path
) -> None:
    for program in ("openssl", "base64", "head", "cut"):
        if not shutil.which(program):
            pytest.skip(f"no {program}")
    text = (Path(__file__).parent.parent / "docs" / "signing.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"To check a signature without kedge:\n\n```\n(.*?)```", text, re.DOTALL)
    write_pair(signing_key, tmp_path / "vendor.key", tmp_path / "vendor.pub")
    data = signed(content_of(sealed_file), signing_key, SERIAL)
    for content, good in ((data, True), (b"X" + data[1:], False)):
        (tmp_path / "FILE").write_bytes(content)
        done = subprocess.run(["sh", "-ec", block], cwd=tmp_path, capture_output=True, check=False)
        assert (done.returncode == 0) is good, done.stderr


def test_the_commands_of_the_document_have_its_options() -> None:
    text = (Path(__file__).parent.parent / "docs" / "signing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    found = re.findall(r"\bkedge ((?:sign|verify|keygen) [^#&|)\n]*)", "\n".join(blocks))
    assert len(found) >= 5
    for line in found:
        name, *words = shlex.split(line.replace('"$now"', "1"))
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert command.make_context(name, words).params


def test_a_key_of_openssl_signs(sealed_file: Path, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("no openssl")
    made = tmp_path / "theirs.key"
    subprocess.run([openssl, "genpkey", "-algorithm", "ed25519", "-out", made], check=True)
    command = [openssl, "pkey", "-in", str(made), "-pubout", "-out", str(tmp_path / "theirs.pub")]
    subprocess.run(command, check=True)
    data = signed(content_of(sealed_file), read_private(made), SERIAL)
    trust = Trust(read_public(tmp_path / "theirs.pub"))
    assert trust.check(content_of(sealed_file, data)).serial == SERIAL


def _refuse(*_: object) -> NoReturn:
    raise AssertionError("parsed before the signature held")


def test_each_of_500_tampered_files_is_refused_before_it_is_parsed(
    sealed_file: Path,
    signing_key: PrivateKey,
    other: PrivateKey,
    form: str,
    models: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = read_artefact(sealed_file)
    labels = tuple(reversed(first.contract.labels))
    foreign = seal(form, models[form], replace(first.contract, labels=labels), first.golden)
    others = Others(sealed_file, signing_key, other, foreign)
    data = signed(content_of(sealed_file), signing_key, SERIAL)
    trust = Trust(signing_key.public, min_serial=SERIAL)
    trust.check(content_of(sealed_file, data))
    # Nothing that looks into a file may be reached.
    monkeypatch.setattr(containers.FORMATS[form], "read", _refuse)
    monkeypatch.setattr(artefact_module, "artefact_of", _refuse)
    chance, refused = random.Random(14), 0
    while refused < TAMPERED:
        kind = KINDS[refused % len(KINDS)]
        changed = kind(chance, data, others)
        if changed == data:
            continue
        sealed_file.write_bytes(changed)
        with pytest.raises(SignatureError) as caught:
            read_content(sealed_file, trust=trust)
        assert "\n" not in str(caught.value), kind
        refused += 1


def test_every_byte_of_the_end_counts(sealed_file: Path, signing_key: PrivateKey) -> None:
    data = signed(content_of(sealed_file), signing_key, SERIAL)
    trust = Trust(signing_key.public)
    for at in range(len(data) - TAIL_BYTES, len(data) - 71):
        for byte in {0, 255, data[at] ^ 1, data[at] ^ 32} - {data[at]}:
            changed = resealed(data[:at] + bytes([byte]) + data[at + 1 : -71])
            with pytest.raises(SignatureError):
                trust.check(content_of(sealed_file, changed))


def test_a_signature_for_another_purpose_is_none_of_a_file(
    sealed_file: Path, signing_key: PrivateKey
) -> None:
    data = signed(content_of(sealed_file), signing_key, SERIAL)
    body, value = (
        data[:-TAIL_BYTES],
        signing_key.sign(message(data[:-TAIL_BYTES], SERIAL)[len(DOMAIN) :]),
    )
    block = Signature(signing_key.public.id, SERIAL, value).block()
    with pytest.raises(SignatureError, match="does not hold"):
        Trust(signing_key.public).check(content_of(sealed_file, resealed(body + block)))


def test_the_other_library_agrees(sealed_file: Path, signing_key: PrivateKey) -> None:
    nacl = pytest.importorskip("nacl.signing")
    data = signed(content_of(sealed_file), signing_key, SERIAL)
    found = signature_of(data)
    assert found is not None
    text = b"kedge-signature-v1\n" + hashlib.sha256(data[:-196]).digest() + b"0000000007"
    assert nacl.VerifyKey(signing_key.public.raw).verify(text, found.value) == text


def test_what_has_a_right_digest_and_a_strange_end_is_not_signed(
    form: str, signing_key: PrivateKey, tmp_path: Path
) -> None:
    content = ModelContent(tmp_path / f"m.{form}", form, resealed(bytes(range(256))))
    with pytest.raises(ArtefactError, match="can't take a signature"):
        signed(content, signing_key, SERIAL)
