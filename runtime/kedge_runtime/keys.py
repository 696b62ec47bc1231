"""Ed25519 keys as PEM files, which openssl reads, too: PKCS 8 and SubjectPublicKeyInfo.

Only here is the library imported, and only when a key is used: the device install lacks it.
"""

import hashlib
import os
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedge_runtime.errors import UsageError, reason_of

if TYPE_CHECKING:
    from types import ModuleType

INSTALL = "pip install cryptography, or apt install python3-cryptography"
PRIVATE, PUBLIC = ".key", ".pub"
MAX_BYTES = 1 << 16  # of a key file; real ones have 120


@dataclass(frozen=True)
class PublicKey:
    """The 32 bytes of a public key. Can be pickled, for processes that read files themselves."""

    raw: bytes

    @property
    def id(self) -> str:
        """The first 16 hex digits of its SHA-256."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def holds(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature, 64 bytes, is this key's over the message."""
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
    """Write both files; a name that is taken is never written over. Raises UsageError."""
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
    except TypeError:  # the library's word for a password that is missing
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
