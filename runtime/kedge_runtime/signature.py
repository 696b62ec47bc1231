"""The signature of a sealed file: 125 bytes of ASCII directly before the digest.

    ed25519:<key id>:<serial>:<signature>:sha256:<digest>

Its place and its length are fixed, so nothing is parsed before the signature holds. The digest
covers the signature, too. docs/signing.md has the format.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from kedge_runtime.containers import DIGEST_BYTES, digest, with_room
from kedge_runtime.content import ModelContent
from kedge_runtime.errors import ArtefactError, SignatureError, UsageError
from kedge_runtime.keys import PrivateKey, PublicKey, read_public

# The first bytes of every signed message: a signature for another purpose is none of a file.
DOMAIN = b"kedge-signature-v1\n"
MAX_SERIAL = 10**10 - 1

_BLOCK = re.compile(rb"ed25519:([0-9a-f]{16}):([0-9]{10}):([A-Za-z0-9+/]{86}==):")
BLOCK_BYTES = len("ed25519:") + 16 + len(":") + 10 + len(":") + 88 + len(":")
TAIL_BYTES = BLOCK_BYTES + DIGEST_BYTES


@dataclass(frozen=True)
class Signature:
    """A signature, 64 bytes, with the id of its key and the file's serial number."""

    key_id: str
    serial: int
    value: bytes

    def block(self) -> bytes:
        """Return it as it stands in a file, BLOCK_BYTES bytes."""
        value = base64.b64encode(self.value)
        return f"ed25519:{self.key_id}:{self.serial:010}:".encode() + value + b":"


@dataclass(frozen=True)
class Trust:
    """The key that must have signed a file, and the lowest serial number that is accepted."""

    key: PublicKey
    min_serial: int = 0

    def check(self, content: ModelContent) -> Signature:
        """Return a file's signature. Raises SignatureError when it is missing or doesn't hold."""
        path, data = content.path, memoryview(content.data)
        found = signature_of(content.data)
        if found is None:
            raise SignatureError(
                f"{path}: carries no signature, and --key demands one: cut short (copy it again), "
                "or never signed (`kedge sign`)"
            )
        if found.key_id != self.key.id:
            raise SignatureError(
                f"{path}: signed with key {found.key_id}, --key has {self.key.id}; "
                "use a file of that key's owner"
            )
        if not self.key.holds(found.value, message(data[:-TAIL_BYTES], found.serial)) or (
            data[-DIGEST_BYTES:] != digest(data[:-DIGEST_BYTES])
        ):
            raise SignatureError(
                f"{path}: the signature does not hold: the file was changed; copy it again"
            )
        if found.serial < self.min_serial:
            raise SignatureError(
                f"{path}: serial number {found.serial}, --min-serial demands {self.min_serial}; "
                "use a newer file"
            )
        return found


def trust_in(key: str | Path | None, min_serial: int) -> Trust:
    """Return what a public key's file and a serial number demand.

    Raises UsageError for a file that holds no such key, and for a serial number alone.
    """
    if key is None:
        raise UsageError("--min-serial: needs --key; without a key anybody can set the number")
    return Trust(read_public(Path(key)), min_serial)


def signature_of(data: bytes) -> Signature | None:
    """Return what stands where a signature does, unchecked; None in an unsigned file."""
    found = _BLOCK.fullmatch(data[-TAIL_BYTES:-DIGEST_BYTES])
    if found is None:
        return None
    signature = Signature(found[1].decode(), int(found[2]), base64.b64decode(found[3]))
    # base64 can spell the same bytes in several ways; a file has one.
    return signature if signature.block() == found[0] else None


def message(body: bytes | memoryview, serial: int) -> bytes:
    """Return what is signed of a file; `body`: every byte before the block."""
    return DOMAIN + hashlib.sha256(body).digest() + f"{serial:010}".encode()


def signed(content: ModelContent, key: PrivateKey, serial: int) -> bytes:
    """Return a sealed file's bytes with a signature, in the place of one that it may have.

    Its digest must hold (`artefact_of`). Raises ArtefactError for a seal that isn't at its place.
    """
    old = DIGEST_BYTES if signature_of(content.data) is None else TAIL_BYTES
    try:
        changed = with_room(content.format, content.data, old, TAIL_BYTES)
    except ValueError as error:
        raise ArtefactError(
            f"{content.path}: can't take a signature: {error}; `kedge seal --reseal` makes it so"
        ) from None
    body = changed[:-TAIL_BYTES]
    value = key.sign(message(body, serial))
    content_signed = body + Signature(key.public.id, serial, value).block()
    return content_signed + digest(content_signed)
