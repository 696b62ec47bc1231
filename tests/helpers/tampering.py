"""What an attacker makes of a signed file: by kind, each from a seeded random generator."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kedge_runtime.artefact import content as containers
from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.artefact.signing import MAX_SERIAL, TAIL_BYTES, PrivateKey, signed

SERIAL = 7


def content_of(path: Path, data: bytes | None = None) -> ModelContent:
    content = read_content(path)
    return content if data is None else replace(content, data=data)


def resealed(body: bytes) -> bytes:
    """Return bytes with the digest that fits them."""
    return body + containers.digest(body)


Tamper = Callable[[random.Random, bytes, "Others"], bytes]


class Others:
    """What an attacker has beside the file: his own key, another signed file, a newer serial."""

    def __init__(self, path: Path, key: PrivateKey, other: PrivateKey, foreign: bytes) -> None:
        content = content_of(path)
        self.unsigned = content.data
        self.by_another_key = signed(content, other, SERIAL)
        self.other_serial = signed(content, key, SERIAL - 1)
        self.foreign = signed(replace(content, data=foreign), key, SERIAL)
        self.key, self.other = key, other


def _flip(chance: random.Random, data: bytes, first: int, last: int) -> bytes:
    at = chance.randrange(first, last)
    changed = data[at] ^ (1 << chance.randrange(8))
    return data[:at] + bytes([changed]) + data[at + 1 :]


def _flipped_body(chance: random.Random, data: bytes, others: Others) -> bytes:
    return _flip(chance, data, 0, len(data) - TAIL_BYTES)


def _flipped_tail(chance: random.Random, data: bytes, others: Others) -> bytes:
    return _flip(chance, data, len(data) - TAIL_BYTES, len(data))


def _flipped_body_redigested(chance: random.Random, data: bytes, others: Others) -> bytes:
    return resealed(_flipped_body(chance, data, others)[:-71])


def _flipped_block_redigested(chance: random.Random, data: bytes, others: Others) -> bytes:
    return resealed(_flip(chance, data, len(data) - TAIL_BYTES, len(data) - 71)[:-71])


def _other_spelling(chance: random.Random, data: bytes, others: Others) -> bytes:
    # The last letter of 64 bytes in base64 has four bits that decoders ignore.
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    at = len(data) - 71 - 4
    letter = letters[letters.index(data[at]) ^ chance.randrange(1, 16)]
    return resealed(data[:at] + bytes([letter]) + data[at + 1 : -71])


def _other_serial(chance: random.Random, data: bytes, others: Others) -> bytes:
    serial = b"%010d" % chance.randrange(SERIAL + 1, MAX_SERIAL)
    at = len(data) - TAIL_BYTES + 25
    return resealed(data[:at] + serial + data[at + 10 : -71])


def _rolled_back(chance: random.Random, data: bytes, others: Others) -> bytes:
    return others.other_serial


def _block_of_the_older(chance: random.Random, data: bytes, others: Others) -> bytes:
    block = bytearray(others.other_serial[-TAIL_BYTES:-71])
    block[25:35] = b"%010d" % SERIAL
    return resealed(data[:-TAIL_BYTES] + bytes(block))


def _block_of_another_file(chance: random.Random, data: bytes, others: Others) -> bytes:
    return resealed(data[:-TAIL_BYTES] + others.foreign[-TAIL_BYTES:-71])


def _by_another_key(chance: random.Random, data: bytes, others: Others) -> bytes:
    return others.by_another_key


def _another_key_under_the_id(chance: random.Random, data: bytes, others: Others) -> bytes:
    block = others.by_another_key[-TAIL_BYTES:-71]
    at = 8 + 16
    return resealed(data[:-TAIL_BYTES] + data[-TAIL_BYTES:][:at] + block[at:])


def _truncated(chance: random.Random, data: bytes, others: Others) -> bytes:
    return data[: chance.randrange(len(data))]


def _truncated_redigested(chance: random.Random, data: bytes, others: Others) -> bytes:
    return resealed(data[: chance.randrange(len(data) - 71)])


def _unsigned(chance: random.Random, data: bytes, others: Others) -> bytes:
    return others.unsigned


def _block_removed(chance: random.Random, data: bytes, others: Others) -> bytes:
    return resealed(data[:-TAIL_BYTES])


def _block_moved(chance: random.Random, data: bytes, others: Others) -> bytes:
    body, block = data[:-TAIL_BYTES], data[-TAIL_BYTES:-71]
    at = chance.randrange(len(body))
    return resealed(body[:at] + block + body[at:])


def _extended(chance: random.Random, data: bytes, others: Others) -> bytes:
    more = chance.randbytes(chance.randrange(1, 300))
    return chance.choice([data + more, resealed(data[:-71] + more), resealed(more + data[:-71])])


def _member_swapped(chance: random.Random, data: bytes, others: Others) -> bytes:
    size = chance.randrange(4, 64)
    one, two = sorted(chance.sample(range(0, len(data) - TAIL_BYTES - size, size), 2))
    copy = bytearray(data)
    copy[one : one + size], copy[two : two + size] = data[two : two + size], data[one : one + size]
    return resealed(bytes(copy[:-71]))


KINDS: tuple[Tamper, ...] = (
    _flipped_body,
    _flipped_tail,
    _flipped_body_redigested,
    _flipped_block_redigested,
    _other_spelling,
    _other_serial,
    _rolled_back,
    _block_of_the_older,
    _block_of_another_file,
    _by_another_key,
    _another_key_under_the_id,
    _truncated,
    _truncated_redigested,
    _unsigned,
    _block_removed,
    _block_moved,
    _extended,
    _member_swapped,
)
