"""The doors: what reads bytes of strangers, what it is fed, and what it may raise and take."""

import atexit
import hashlib
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from random import Random
from zlib import crc32

from conftest import tiny_contract
from fuzz import onnx_mutants, seeds, tflite_mutants
from fuzz.ways import Way, damaged, members, nonsense, reworded
from kedge_convert.matrix import cells, lock
from kedge_convert.matrix.cache import Cache
from kedge_convert.matrix.config import read_config
from kedge_convert.program import reading
from kedge_models.cards import parse
from kedge_runtime.artefact import containers, foreign
from kedge_runtime.artefact.content import DIGEST_BYTES, ModelContent, digest
from kedge_runtime.artefact.contract import MAX_JSON, Contract
from kedge_runtime.artefact.file import artefact_of
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.labels import read_labels
from kedge_runtime.drift.codecs import AnswersCodec
from kedge_runtime.drift.journal import Journal
from kedge_runtime.drift.reference import Reference
from kedge_runtime.drift.truth import read_truth
from kedge_runtime.errors import KedgeError
from kedge_runtime.field import state
from kedge_runtime.field.sketch import Sketch
from kedge_runtime.image.decode import MAX_MEMORY, read_image
from kedge_runtime.image.header import HeaderError, read_header
from kedge_runtime.modelfile import archives, stored, tflite_metadata
from kedge_runtime.modelfile.check.check import check_model
from kedge_runtime.modelfile.network import read_network
from kedge_runtime.modelfile.report import summarise

TEXT = (reworded, reworded, damaged, nonsense)
BYTES = (damaged, damaged, damaged, nonsense)
TRIES = 10
# Of a file that is read as a whole, where no module states a limit.
USUAL = 32 << 20


@dataclass(frozen=True)
class Door:
    """One reader. `call` gets the input, `seeds` are good ones, `ways` make hostile ones of them.

    `seal` makes an input whole again, its digest for example. `allowed`: what `call` may raise.
    `limit`: the bytes of memory that the reader states, of which it may take four times as much.
    """

    call: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    ways: tuple[Way, ...] = BYTES
    seal: Callable[[bytes], bytes] = bytes
    allowed: tuple[type[Exception], ...] = (KedgeError,)
    limit: int = USUAL

    def make(self, name: str, seed: int, number: int) -> bytes:
        """Return one input: the same for the same name, seed and number."""
        known = _known(name)
        random = Random(((seed << 32) + crc32(name.encode()) << 40) + number)
        return self.seal(random.choice(self.ways)(random, known))


@cache
def _known(name: str) -> tuple[bytes, ...]:
    return tuple(DOORS[name].seeds())


@cache
def root() -> Path:
    """Return this run's folder, in memory where the system has such a place.

    Made before children are forked: their parent removes it, however they end.
    """
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="kedge-fuzz-", dir=place))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _own(process: int) -> Path:
    folder = root() / str(process)
    folder.mkdir()
    return folder


def scratch() -> Path:
    """Return a folder of this process alone."""
    return _own(os.getpid())


def from_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Return a call that writes its input to a file called `name` and reads that."""

    def call(content: bytes) -> object:
        path = scratch() / name
        # Anew each time: what an earlier call still maps must not change.
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        return read(path)

    return call


def _resealed(content: bytes) -> bytes:
    """Write a right digest over the last bytes: anybody can seal a file."""
    body = content[:-DIGEST_BYTES]
    return body + digest(body)


def _appended(form: str) -> Way:
    """Return a way that changes a member and seals the file again."""
    return members(
        [seeds.members(form)], lambda found: containers.append(form, seeds.model(form), found)
    )


def _archive(content: bytes, room: int = 0) -> Way:
    """Return a way that changes the members of an .npz and packs them again, with room behind."""
    found = archives.read_members(BytesIO(content))
    return members([found], lambda changed: seeds.zipped(changed) + bytes(room))


def from_content(form: str, read: Callable[[ModelContent], object]) -> Callable[[bytes], object]:
    """Return a call that takes its input for the bytes of a model file."""
    return lambda content: read(ModelContent(Path(f"x.{form}"), form, content))


def _artefact(form: str) -> Door:
    ways = (_appended(form), _appended(form), damaged)
    read = from_content(form, artefact_of)
    return Door(read, lambda: [seeds.artefact(form)], ways, _resealed, limit=stored.MAX_BYTES)


def _inspect(form: str) -> Door:
    def read(content: ModelContent) -> object:
        return summarise(read_network(content))

    good = [seeds.model(form), seeds.artefact(form)]
    return Door(from_content(form, read), lambda: good, (damaged,))


def _mutated(mutate: Callable[[bytes, Random], bytes]) -> Way:
    """Return a way that changes a model's structure, not its bytes."""

    def way(random: Random, good: Sequence[bytes]) -> bytes:
        for _ in range(TRIES):
            try:
                return mutate(random.choice(good), random)
            except (
                TypeError,
                ValueError,
                LookupError,
                OverflowError,
                struct.error,
            ):  # no file can state that change
                continue
        return damaged(random, good)

    return way


def _check(form: str, mutate: Callable[[bytes, Random], bytes]) -> Door:
    good = [seeds.model(form)]
    return Door(from_content(form, check_model), lambda: good, (_mutated(mutate), damaged))


def _program(content: ModelContent) -> object:
    """Read a float program as a source, up to where Keras would build it."""
    check_model(content)
    program = reading.read_file(content)
    return reading.needed(program.operations, program.outputs)


def _signed(form: str) -> Door:
    """Return the door of a demanded signature: nothing but the signed file itself may pass."""

    def read(content: ModelContent) -> object:
        found = seeds.trust().check(content)
        if content.data != seeds.signed(form):
            raise AssertionError("a changed file passed for a signed one")
        return found

    return Door(from_content(form, read), lambda: [seeds.signed(form)], (damaged,), _resealed_once)


def _resealed_once(content: bytes) -> bytes:
    """Write a right digest over the last bytes of every other input: both guards are tried."""
    return _resealed(content) if len(content) % 2 else content


def _split(form: str) -> Door:
    good = (seeds.artefact(form), seeds.model(form))
    ways = (damaged, _appended(form))
    return Door(partial(containers.split, form), lambda: good, ways, limit=stored.MAX_BYTES)


def _journal(path: Path) -> object:
    with Journal(path, seeds.WORK, AnswersCodec(seeds.SHARDS)) as notes:
        return list(notes.entries())


def _checked(content: bytes) -> bytes:
    """Write a right checksum before each line: the work is no secret."""
    head, *lines = content.split(b"\n")
    return b"\n".join([head, *map(_line, lines)])


def _line(line: bytes) -> bytes:
    _, space, text = line.partition(b" ")
    right = hashlib.sha256(seeds.WORK.encode() + b"\n" + text).hexdigest().encode()
    return right + space + text if space else line


def _reference(path: Path) -> object:
    reference = Reference(path)
    rows = zip(reference.names, reference.digests, strict=True)
    return [reference.outputs(name, digest) for name, digest in rows]


def _truth(path: Path) -> object:
    images = [Path("0.png"), Path("folder/1.png")]
    return read_truth(images, tiny_contract("onnx").labels, path)


def _entry(content: bytes) -> object:
    cache = Cache(scratch() / "cache")
    place = cache.folder / "entries" / f"{seeds.KEY}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return cache.get(seeds.KEY)


def _facts(path: Path) -> object:
    path.with_name("labels.txt").write_bytes(seeds.labels()[0])
    return foreign.read_contract(path)


def _card(content: bytes) -> object:
    return parse("MobileNet", content.decode(errors="surrogateescape"))


DOORS: dict[str, Door] = {
    "image": Door(read_image, seeds.pictures, limit=MAX_MEMORY),
    "header": Door(read_header, seeds.pictures, allowed=(HeaderError,), limit=1 << 20),
    "contract": Door(Contract.from_json, seeds.contracts, TEXT, limit=20 * MAX_JSON),
    "facts": Door(from_file("x.json", _facts), seeds.facts, TEXT),
    "tflite": _artefact("tflite"),
    "onnx": _artefact("onnx"),
    "split tflite": _split("tflite"),
    "split onnx": _split("onnx"),
    "inspect tflite": _inspect("tflite"),
    "inspect onnx": _inspect("onnx"),
    "check tflite": _check("tflite", tflite_mutants.mutate),
    "check onnx": _check("onnx", onnx_mutants.mutate),
    "program": Door(
        from_content("tflite", _program),
        lambda: [seeds.float_program()],
        (_mutated(tflite_mutants.mutate), damaged),
    ),
    "signed tflite": _signed("tflite"),
    "signed onnx": _signed("onnx"),
    "metadata": Door(from_content("tflite", tflite_metadata.read), seeds.metadata, (damaged,)),
    "zip": Door(
        lambda content: archives.read_members(BytesIO(content)),
        seeds.archives,
        limit=stored.MAX_BYTES,
    ),
    "npz": Door(
        lambda content: archives.read_arrays(content),
        lambda: [seeds.zipped(seeds.arrays())],
        (members([seeds.arrays()], seeds.zipped), damaged),
        limit=stored.MAX_BYTES,
    ),
    "golden": Door(
        Golden.from_bytes,
        lambda: [seeds.golden()],
        (_archive(seeds.golden()), damaged),
        limit=stored.MAX_BYTES,
    ),
    "sketch": Door(
        Sketch.from_bytes,
        lambda: [seeds.sketch().to_bytes()],
        (_archive(seeds.sketch().to_bytes()), damaged),
        limit=stored.MAX_BYTES,
    ),
    "field state": Door(
        lambda content: state.from_bytes(content, seeds.sketch(), "sha256:x"),
        lambda: [seeds.field_state()],
        (_archive(seeds.field_state()[:-DIGEST_BYTES], DIGEST_BYTES), damaged),
        _resealed,
        limit=stored.MAX_BYTES,
    ),
    "labels": Door(from_file("x.txt", read_labels), seeds.labels, TEXT),
    "truth": Door(from_file("x.csv", _truth), seeds.truths, TEXT),
    "reference": Door(
        from_file("x.npz", _reference),
        lambda: [seeds.reference()],
        (_archive(seeds.reference()), damaged),
    ),
    "journal": Door(from_file("x.journal", _journal), lambda: [seeds.journal()], TEXT, _checked),
    "cache entry": Door(_entry, lambda: [seeds.entry()], TEXT),
    "kedge.toml": Door(
        from_file("kedge.toml", lambda path: cells.groups(read_config(path))),
        lambda: [seeds.CONFIG],
        TEXT,
    ),
    "kedge.lock.toml": Door(from_file("kedge.lock.toml", lock.read), lambda: [seeds.lock()], TEXT),
    "card": Door(_card, seeds.cards, TEXT),
}
