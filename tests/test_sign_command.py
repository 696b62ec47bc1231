"""`kedge sign`, `kedge keygen`, and the commands that demand a signature."""

import json
import os
import pickle
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import Run as Kedge
from kedge_runtime.artefact import signing
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.file import artefact_of
from kedge_runtime.artefact.signing import (
    MAX_SERIAL,
    PrivateKey,
    Trust,
    generate,
    read_public,
    signature_of,
    signed,
)
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.errors import SignatureError, UsageError
from tampering import SERIAL, content_of

# The library is what devices may lack; without it there is nothing to test here.
pytest.importorskip("cryptography", reason="signatures need keras-kedge[signing]")


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(kedge: Kedge) -> Run:
    return lambda *words: Done(*kedge(*words))


def test_the_commands_from_key_to_device(run: Run, sealed_file: Path, tmp_path: Path) -> None:
    name = tmp_path / "vendor"
    made = run("keygen", name)
    assert made.code == 0
    assert stat.S_IMODE(name.with_suffix(".key").stat().st_mode) == 0o600
    done = run("sign", sealed_file, "--key", f"{name}.key", "--serial", "12", "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    key_id = read_public(name.with_suffix(".pub")).id
    assert facts == {
        "schema": 1,
        "command": "sign",
        "artefact": str(sealed_file),
        "key": key_id,
        "serial": 12,
    }
    assert key_id in made.out
    trust = Trust(read_public(name.with_suffix(".pub")), 12)
    assert artefact_of(read_content(sealed_file, trust=trust)).contract
    opened = Classifier.open(sealed_file, key=f"{name}.pub", min_serial=12)
    assert opened.artefact.path == sealed_file
    with pytest.raises(SignatureError, match="--min-serial demands 13"):
        Classifier.open(sealed_file, key=f"{name}.pub", min_serial=13)


def test_the_default_serial_number_grows(run: Run, sealed_file: Path, key_pair: Path) -> None:
    out = sealed_file.with_name("out" + sealed_file.suffix)
    before = sealed_file.read_bytes()
    assert run("sign", sealed_file, "--key", f"{key_pair}.key", "--out", out).code == 0
    assert sealed_file.read_bytes() == before
    found = signature_of(out.read_bytes())
    assert found is not None
    assert 1_700_000_000 < found.serial <= MAX_SERIAL


def test_verify_tells_the_serial_number(
    run: Run, models: dict[str, bytes], labels: Path, key_pair: Path, tmp_path: Path
) -> None:
    foreign, path = tmp_path / "m.tflite", tmp_path / "sealed.tflite"
    foreign.write_bytes(models["tflite"])
    facts = ("--labels", labels, "--preprocess", "image_dataset", "--normalisation", "tf")
    done = run("seal", foreign, *facts, "--head", "logits", "--out", path)
    assert done.code == 0, done.err
    assert run("sign", path, "--key", f"{key_pair}.key", "--serial", "41").code == 0
    done = run("verify", path, "--key", f"{key_pair}.pub", "--min-serial", "41", "--json")
    assert done.code == 0, done.out
    found = json.loads(done.out)
    assert found["serial"] == 41
    assert [stage["name"] for stage in found["stages"]][:2] == ["signature", "file"]
    done = run("verify", path, "--key", f"{key_pair}.pub", "--min-serial", "42")
    assert done.code == 1
    assert "signature   FAILED" in done.out
    assert len(done.out.splitlines()) == 2


WITHOUT = {
    "classify": ("classify", "{file}", "{picture}", "--key", "{pub}"),
    "bench": ("bench", "{file}", "--rounds", "2", "--warm-up", "0", "--key", "{pub}"),
    "drift": ("drift", "{file}", "--images", "{folder}", "--against", "{file}", "--key", "{pub}"),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_each_command_refuses_an_unsigned_file(
    run: Run, name: str, sealed_file: Path, key_pair: Path, pictures: Path
) -> None:
    words = {
        "file": sealed_file,
        "pub": f"{key_pair}.pub",
        "folder": pictures,
        "picture": min(pictures.glob("*.*")),
    }
    done = run(*(word.format(**words) for word in WITHOUT[name]))
    assert done.code == 2
    assert "carries no signature" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_drift_takes_signed_files(
    run: Run, sealed_file: Path, key_pair: Path, pictures: Path, signing_key: PrivateKey
) -> None:
    sealed_file.write_bytes(signed(content_of(sealed_file), signing_key, SERIAL))
    words = (
        "drift",
        sealed_file,
        "--images",
        pictures,
        "--against",
        sealed_file,
        "--truth",
        "none",
    )
    done = run(*words, "--jobs", "2", "--key", f"{key_pair}.pub", "--min-serial", str(SERIAL))
    assert done.code in (0, 3), done.err


def test_a_foreign_file_and_a_zip_are_refused_with_a_key(
    run: Run, models: dict[str, bytes], key_pair: Path, pictures: Path, tmp_path: Path
) -> None:
    foreign, packed = tmp_path / "m.tflite", tmp_path / "m.zip"
    foreign.write_bytes(models["tflite"])
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(foreign, "model.tflite")
    for path in (foreign, packed):
        done = run("classify", path, min(pictures.glob("*.*")), "--key", f"{key_pair}.pub")
        assert done.code == 2
        assert "no signature" in done.err


def test_keys_are_never_written_over(run: Run, key_pair: Path, tmp_path: Path) -> None:
    secret = Path(f"{key_pair}.key").read_bytes()
    for taken in (key_pair, tmp_path / "half"):
        if taken.name == "half":
            Path(f"{taken}.pub").symlink_to(tmp_path / "elsewhere")
        done = run("keygen", taken)
        assert done.code == 2
        assert "never overwritten" in done.err
    assert Path(f"{key_pair}.key").read_bytes() == secret
    assert not (tmp_path / "half.key").exists()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("room", [10, 115])
def test_a_full_disk_leaves_no_half_key(room: int, tmp_path: Path) -> None:
    """A private key has 119 bytes, a public one 113."""
    code = (
        "import resource; from kedge_runtime.cli import main\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room})); main()"
    )
    command = [sys.executable, "-c", code, "keygen", str(tmp_path / "new")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert list(tmp_path.iterdir()) == []


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "the public key signs": (("sign", "{file}", "--key", "{name}.pub"), "no private key"),
    "the private key verifies": (("verify", "{file}", "--key", "{name}.key"), "no public key"),
    "no key file": (("verify", "{file}", "--key", "{name}.no"), "no such file"),
    "a key of another kind": (("sign", "{file}", "--key", "{rsa}"), "not an Ed25519"),
    "a password": (("sign", "{file}", "--key", "{locked}"), "protected by a password"),
    "a serial number alone": (("verify", "{file}", "--min-serial", "3"), "needs --key"),
    "a serial number too large": (
        ("sign", "{file}", "--key", "{name}.key", "--serial", "10000000000"),
        "9999999999",
    ),
    "another format": (
        ("sign", "{file}", "--key", "{name}.key", "--out", "{name}.bin"),
        "must end in",
    ),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_line(run: Run, kind: str, sealed_file: Path, key_pair: Path) -> None:
    words, said = MISTAKES[kind]
    before = sealed_file.read_bytes()
    rsa, locked = key_pair.with_name("rsa.key"), key_pair.with_name("locked.key")
    _strange_keys(rsa, locked)
    done = run(
        *(word.format(file=sealed_file, name=key_pair, rsa=rsa, locked=locked) for word in words)
    )
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert sealed_file.read_bytes() == before


def _strange_keys(rsa: Path, locked: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    rsa.write_bytes(generate_private_key(SECP256R1()).private_bytes(pem, pkcs8, plain))
    secret = serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(generate().key.private_bytes(pem, pkcs8, secret))


def test_a_changed_file_is_not_signed(run: Run, sealed_file: Path, key_pair: Path) -> None:
    data = bytearray(sealed_file.read_bytes())
    data[100] ^= 1
    sealed_file.write_bytes(data)
    done = run("sign", sealed_file, "--key", f"{key_pair}.key")
    assert done.code == 2
    assert "changed since it was sealed" in done.err
    assert sealed_file.read_bytes() == data


def test_without_the_library_a_line_says_how_to_get_it(sealed_file: Path, key_pair: Path) -> None:
    block = (
        "import sys\nsys.modules['cryptography'] = None\nfrom kedge_runtime.cli import main\nmain()"
    )
    command = [sys.executable, "-c", block, "verify", str(sealed_file), "--key", f"{key_pair}.pub"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install cryptography" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_key_the_library_is_not_imported(artefacts: Path) -> None:
    code = (
        "import sys\nfrom kedge_runtime import Classifier\n"
        f"Classifier.open({str(artefacts / 'tiny.onnx')!r}, engine='opencv')\n"
        "loaded = {'cryptography', 'kedge_runtime.artefact.signing'}\n"
        "sys.exit(bool(loaded & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_trust_goes_to_other_processes(signing_key: PrivateKey) -> None:
    trust = Trust(signing_key.public, 3)
    assert pickle.loads(pickle.dumps(trust)) == trust


def test_no_secret_is_shown(signing_key: PrivateKey) -> None:
    secret = (
        signing_key.key.private_bytes_raw()
        if hasattr(signing_key.key, "private_bytes_raw")
        else b"?"
    )
    assert secret.hex() not in repr(signing_key)
    assert repr(signing_key) == "PrivateKey()"


def test_a_key_that_cannot_be_read_is_told(key_pair: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        read_public(key_pair.parent)
    huge = key_pair.with_name("huge.pub")
    with huge.open("wb") as file:
        os.truncate(file.fileno(), 1 << 34)
    with pytest.raises(UsageError, match="no public key"):
        read_public(huge)
    assert signing.MAX_BYTES < 1 << 20
