"""Sign sealed files with Ed25519 and check signatures.

Keys are PEM files that openssl reads, too: PKCS 8 and SubjectPublicKeyInfo. A signature is 125
bytes of ASCII directly before the digest.
"""

import base64
import hashlib
import os
import re
from dataclasses import field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedge_runtime.artefact.containers import with_room
from kedge_runtime.artefact.content import DIGEST_BYTES, ModelContent, digest
from kedge_runtime.errors import ArtefactError, SignatureError, UsageError, reason_of
from kedge_runtime.frozen import dataclass

if TYPE_CHECKING:
    from types import ModuleType

INSTALL = "pip install cryptography, or apt install python3-cryptography"
PRIVATE, PUBLIC = ".key", ".pub"
MAX_BYTES = 1 << 16  # of a key file; real ones have 120


@dataclass(frozen=True)
class PublicKey:
    """A public key, 32 bytes. Can be pickled, for processes that read files themselves."""

    raw: bytes

    @property
    def id(self) -> str:
        """The first 16 hex digits of its SHA-256."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def holds(self, signature: bytes, message: bytes) -> bool:
        """Return whether the signature, 64 bytes, is this key's over the message."""
        invalid = _library("exceptions").InvalidSignature
        try:
            _ed25519().Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (invalid, ValueError):
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """A private key; the bytes stay in the library."""

    key: Any = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """Its public half."""
        return _public(self.key.public_key())

    def sign(self, message: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return bytes(self.key.sign(message))


def generate() -> PrivateKey:
    """Return a new key from the system's random numbers."""
    return PrivateKey(_ed25519().Ed25519PrivateKey.generate())


def read_private(path: Path) -> PrivateKey:
    """Read a private key. Raises UsageError for anything else."""
    key = _parsed(path, "load_pem_private_key", password=None)
    if not isinstance(key, _ed25519().Ed25519PrivateKey):
        raise UsageError(f"{path}: a private key, but not an Ed25519 one; `kedge keygen` makes one")
    return PrivateKey(key)


def read_public(path: Path) -> PublicKey:
    """Read a public key. Raises UsageError for anything else."""
    key = _parsed(path, "load_pem_public_key")
    if not isinstance(key, _ed25519().Ed25519PublicKey):
        raise UsageError(f"{path}: a public key, but not an Ed25519 one; `kedge keygen` makes one")
    return _public(key)


def write_pair(key: PrivateKey, private: Path, public: Path) -> None:
    """Write both files; an existing file is never overwritten. Raises UsageError."""
    formats = _library("hazmat.primitives.serialization")
    pem = formats.Encoding.PEM
    secret = key.key.private_bytes(pem, formats.PrivateFormat.PKCS8, formats.NoEncryption())
    shown = key.key.public_key().public_bytes(pem, formats.PublicFormat.SubjectPublicKeyInfo)
    _create(private, secret, 0o600)
    try:
        _create(public, shown, 0o644)
    except UsageError:
        private.unlink()
        raise


def _public(key: Any) -> PublicKey:
    formats = _library("hazmat.primitives.serialization")
    return PublicKey(key.public_bytes(formats.Encoding.Raw, formats.PublicFormat.Raw))


def _create(path: Path, content: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        _fill(os.open(path, flags, mode), path, content)
    except FileExistsError:
        raise UsageError(
            f"{path}: exists, and keys are never overwritten; choose another NAME"
        ) from None
    except OSError as error:
        raise UsageError(f"{path}: can't be written ({reason_of(error)})") from None


def _fill(descriptor: int, path: Path, content: bytes) -> None:
    """Write a new file to the disk, or leave none."""
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink()
        raise


def _parsed(path: Path, loader: str, **options: None) -> Any:
    load = getattr(_library("hazmat.primitives.serialization"), loader)
    unsupported = _library("exceptions").UnsupportedAlgorithm
    kind = "private" if "private" in loader else "public"
    suffix = PRIVATE if kind == "private" else PUBLIC
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES)
        return load(content, **options)
    except OSError as error:
        raise UsageError(f"{path}: {reason_of(error)}; give a {suffix} file") from None
    except TypeError:  # a missing password
        raise UsageError(
            f"{path}: protected by a password, which kedge doesn't take: "
            f"openssl pkey -in {path} -out plain{suffix}"
        ) from None
    except (ValueError, unsupported):
        raise UsageError(
            f"{path}: no {kind} key in PEM; give the {suffix} file of `kedge keygen`"
        ) from None


def _ed25519() -> "ModuleType":
    return _library("hazmat.primitives.asymmetric.ed25519")


def _library(module: str) -> "ModuleType":
    try:
        return import_module(f"cryptography.{module}")
    except ImportError as error:
        raise UsageError(f"keys need the package cryptography ({error}): {INSTALL}") from None


# Starts every signed message, so that a signature for another purpose is not valid for a file.
DOMAIN = b"kedge-signature-v1\n"
MAX_SERIAL = 10**10 - 1

_BLOCK = re.compile(rb"ed25519:([0-9a-f]{16}):([0-9]{10}):([A-Za-z0-9+/]{86}==):")
BLOCK_BYTES = len("ed25519:") + 16 + len(":") + 10 + len(":") + 88 + len(":")
TAIL_BYTES = BLOCK_BYTES + DIGEST_BYTES


@dataclass(frozen=True)
class Signature:
    """A signature, 64 bytes, with its key's id and the file's serial number."""

    key_id: str
    serial: int
    value: bytes

    def block(self) -> bytes:
        """Return its bytes in a file, BLOCK_BYTES."""
        value = base64.b64encode(self.value)
        return f"ed25519:{self.key_id}:{self.serial:010}:".encode() + value + b":"


@dataclass(frozen=True)
class Trust:
    """The required signature: its key, and the lowest accepted serial number."""

    key: PublicKey
    min_serial: int = 0

    def check(self, content: ModelContent) -> Signature:
        """Return a file's signature. Raises SignatureError when it is missing or invalid."""
        path, data = content.path, memoryview(content.data)
        signature = signature_of(content.data)
        if signature is None:
            raise SignatureError(
                f"{path}: carries no signature, and --key demands one: cut short (copy it again), "
                "or never signed (`kedge sign`)"
            )
        if signature.key_id != self.key.id:
            raise SignatureError(
                f"{path}: signed with key {signature.key_id}, --key has {self.key.id}; "
                "use a file of that key's owner"
            )
        if not self.key.holds(signature.value, message(data[:-TAIL_BYTES], signature.serial)) or (
            data[-DIGEST_BYTES:] != digest(data[:-DIGEST_BYTES])
        ):
            raise SignatureError(
                f"{path}: the signature does not hold: the file was changed; copy it again"
            )
        if signature.serial < self.min_serial:
            raise SignatureError(
                f"{path}: serial number {signature.serial}, "
                f"--min-serial demands {self.min_serial}; use a newer file"
            )
        return signature


def trust_in(key: "str | os.PathLike[str] | None", min_serial: int) -> Trust:
    """Return the signature that a public key's file and a serial number require.

    Raises UsageError for a file that holds no such key, and for a serial number alone.
    """
    if key is None:
        raise UsageError("--min-serial: needs --key; without a key anybody can set the number")
    return Trust(read_public(Path(key)), min_serial)


def signature_of(data: bytes) -> Signature | None:
    """Return the signature in a file, unchecked; None in an unsigned file."""
    match = _BLOCK.fullmatch(data[-TAIL_BYTES:-DIGEST_BYTES])
    if match is None:
        return None
    signature = Signature(match[1].decode(), int(match[2]), base64.b64decode(match[3]))
    # base64 can write the same bytes in several ways; only one is allowed.
    return signature if signature.block() == match[0] else None


def message(body: bytes | memoryview, serial: int) -> bytes:
    """Return the bytes to sign for a file; `body`: every byte before the signature."""
    return DOMAIN + hashlib.sha256(body).digest() + f"{serial:010}".encode()


def signed(content: ModelContent, key: PrivateKey, serial: int) -> bytes:
    """Return a sealed file's bytes with a signature, which replaces an earlier one.

    Its digest must be right (`artefact_of`). Raises ArtefactError for a misplaced seal.
    """
    old = DIGEST_BYTES if signature_of(content.data) is None else TAIL_BYTES
    try:
        changed = with_room(content.format, content.data, old, TAIL_BYTES)
    except ValueError as error:
        raise ArtefactError(
            f"{content.path}: can't take a signature: {error}; `kedge seal --reseal` makes it so"
        ) from None
    body = memoryview(changed)[:-TAIL_BYTES]
    block = Signature(key.public.id, serial, key.sign(message(body, serial))).block()
    return b"".join((body, block, digest(body, block)))
