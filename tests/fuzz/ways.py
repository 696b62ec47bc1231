"""Ways to make a hostile input of good ones: bytes damaged, words replaced, members changed.

Each way is a function of a random generator and the good inputs, and cheap: ten million inputs are
made in half an hour.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random

Way = Callable[[Random, Sequence[bytes]], bytes]
Members = dict[str, bytes]
Content = bytearray

# Numbers at which integers, lengths and signs turn over.
NUMBERS: tuple[int, ...] = (
    0,
    1,
    2,
    7,
    8,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
)
NUMBERS += (0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 1 << 20, 1 << 24, 1 << 28)

# What may stand for a value of JSON or TOML, and should not.
WORDS = (
    *(b"null", b"true", b"false", b"-1", b"0", b"1", b"2", b"0.5", b"-0.0", b"1e308", b"1e999"),
    *(b"NaN", b"-Infinity", b"inf", b"nan", b"9" * 25, b"9" * 400, b"9" * 5000, b"1" + b"0" * 310),
    *(b"1e-320", b"9223372036854775808", b"4294967296", b"0x7fffffffffffffff", b"1_000", b"0b11"),
    *(b'""', b"''", b'"\\u0000"', b'"\\ud800"', b'"\\udc80"', b'"a\\nb"', b'"\\u001b[31m"'),
    *(b'"::error::no"', b'"\\u202e"', b'"' + b"x" * 10_000 + b'"', b'"../../x"', b'"/"', b'"."'),
    *(b"[]", b"{}", b"[[]]", b"[null]", b'[{"a":1}]', b'{"":0}', b"[0,0,0]", b'["a","a"]'),
    *(b"[" * 3000, b"[" * 400 + b"]" * 400, b'{"a":' * 3000, b"{a=" * 300, b"a." * 3000 + b"a=1"),
    *(b"1979-05-27T07:32:00Z", b"07:32:00", b"\xff\xfe", b"\xed\xa0\x80", b'"""a\nb"""', b"\0"),
)
_TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.)*"|-?\d[\w.+-]*|\btrue\b|\bfalse\b|\bnull\b')


def damaged(random: Random, seeds: Sequence[bytes]) -> bytes:
    """Damage the bytes of an input once or a few times."""
    content = bytearray(random.choice(seeds))
    for _ in range(1 + min(int(random.expovariate(0.8)), 7)):
        random.choice(STEPS)(random, content, seeds)
    return bytes(content)


def reworded(random: Random, seeds: Sequence[bytes]) -> bytes:
    """Replace, drop or repeat words of an input in JSON, TOML or another language of tokens."""
    content = random.choice(seeds)
    for _ in range(1 + (random.random() < 0.3)):
        places = _tokens(content)
        if not places:
            return damaged(random, seeds)
        start, stop = random.choice(places)
        content = content[:start] + _word(random, content, places) + content[stop:]
    return content


def _word(random: Random, content: bytes, places: Sequence[tuple[int, int]]) -> bytes:
    if random.random() < 0.7:
        return random.choice(WORDS)
    start, stop = random.choice(places)
    return content[start:stop]


@lru_cache(maxsize=64)
def _tokens(content: bytes) -> tuple[tuple[int, int], ...]:
    return tuple(found.span() for found in _TOKEN.finditer(content))


def nonsense(random: Random, seeds: Sequence[bytes]) -> bytes:
    """Make bytes of no kind, or the beginning of an input with such bytes behind it."""
    seed = random.choice(seeds)
    return seed[: random.choice((0, 0, 4, 12, 30))] + random.randbytes(random.randrange(200))


def members(archives: Sequence[Members], pack: Callable[[Members], bytes]) -> Way:
    """Return a way that changes one member of an archive and packs it whole again."""

    def change(random: Random, seeds: Sequence[bytes]) -> bytes:
        found = dict(random.choice(archives))
        name = random.choice(list(found))
        chance = random.random()
        if chance < 0.04:
            del found[name]
        elif chance < 0.08:
            found[_renamed(random, name)] = found.pop(name)
        else:
            way = damaged if random.random() < 0.4 else reworded
            found[name] = way(random, [found[name]])
        return pack(found)

    return change


def _renamed(random: Random, name: str) -> str:
    return random.choice((f"../{name}", f"/{name}", name.upper(), "", "x" * 300, f"{name}\x1b[1m"))


def _turn_bit(random: Random, content: Content, seeds: Sequence[bytes]) -> None:
    if content:
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)


def _set_byte(random: Random, content: Content, seeds: Sequence[bytes]) -> None:
    if content:
        content[random.randrange(len(content))] = random.randrange(256)


def _set_number(random: Random, content: Content, seeds: Sequence[bytes]) -> None:
    size = random.choice((2, 4, 4, 8))
    at = random.randrange(len(content) + 1)
    order = "little" if random.random() < 0.5 else "big"
    number = random.choice(NUMBERS) & ((1 << 8 * size) - 1)
    content[at : at + size] = number.to_bytes(size, order)  # type: ignore[arg-type]


def _nudge(random: Random, content: Content, seeds: Sequence[bytes]) -> None:
    if content:
        at = random.randrange(len(content))
        content[at] = (content[at] + random.randint(-4, 4)) % 256


def _block(random: Random, content: Content) -> slice:
    start = random.randrange(len(content) + 1)
    return slice(start, start + random.choice((1, 2, 4, 8, 16, 64, 256)))


def _delete(random: Random, content: Content, seeds: Sequence[bytes]) -> None:
    del content[_block(random, content)]


def _zero(random: Random, content: Content, seeds: Sequence[bytes]) -> None:
    where = _block(random, content)
    content[where] = bytes(len(content[where]))


def _repeat(random: Random, content: Content, seeds: Sequence[bytes]) -> None:
    where = _block(random, content)
    content[where.start : where.start] = content[where] * random.choice((1, 2, 20))


def _insert(random: Random, content: Content, seeds: Sequence[bytes]) -> None:
    at = random.randrange(len(content) + 1)
    content[at:at] = random.randbytes(random.choice((1, 2, 4, 16)))


def _cut(random: Random, content: Content, seeds: Sequence[bytes]) -> None:
    del content[random.randrange(len(content) + 1) :]


def _splice(random: Random, content: Content, seeds: Sequence[bytes]) -> None:
    other = random.choice(seeds)
    start = random.randrange(len(other) + 1)
    at = random.randrange(len(content) + 1)
    part = other[start : start + random.choice((4, 16, 64, 1024))]
    content[at : at + len(part)] = part


Step = Callable[[Random, Content, Sequence[bytes]], None]
STEPS: tuple[Step, ...] = (
    _turn_bit,
    _turn_bit,
    _set_byte,
    _set_number,
    _set_number,
    _nudge,
    _delete,
    _zero,
    _repeat,
    _insert,
    _cut,
    _splice,
)
