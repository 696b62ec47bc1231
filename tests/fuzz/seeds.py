"""Good inputs of every door, made by code: what the fuzzers damage."""

import json
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from conftest import MODELS, tiny_contract
from kedge_convert.export.tflite import describe
from kedge_convert.matrix.cache import Cache
from kedge_convert.matrix.lock import Accepted, Lock, write
from kedge_models import toml
from kedge_runtime.artefact import signing
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.contract import Contract, Output
from kedge_runtime.artefact.file import CONTRACT, GOLDEN, SKETCH, seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.signing import PrivateKey, Trust
from kedge_runtime.drift.codecs import Answers, AnswersCodec
from kedge_runtime.drift.journal import Failure, Journal, Shard
from kedge_runtime.drift.reference import Recorded, ReferenceFacts, write_reference
from kedge_runtime.field import state
from kedge_runtime.field.evidence import FieldTests, MeasuredFrame
from kedge_runtime.field.measure import STATISTICS
from kedge_runtime.field.sketch import Seen, Sketch, sketch_of

Members = dict[str, bytes]
WORK = "w" * 64
KEY = "k" * 64
SHARDS = {0: Shard(0, 0, ("a.png", "x.png")), 1: Shard(1, 2, ("b.png",))}

CONFIG = b"""
out = "built"
[options]
effort = ["default", "fast"]
calibrate_count = 20
seed = 3
[defaults]
targets = ["tflite:int8", "tflite:float32", "onnx:float32"]
images = "photos"
gates = { min_agreement = 0.9 }
[[target]]
name = "tflite:int8"
gates = { max_drop = "2%", max_bytes = 500000 }
[[model]]
name = "demo"
[[model]]
name = "own"
source = "own.keras"
preprocess = "image_dataset"
colour = "grey"
crop = 0.875
exif = false
truth = "folders"
attribute = 5
[model.gates]
max_latency_ratio = 1.5
min_agreement = 0.95
"""


@cache
def pictures() -> tuple[bytes, ...]:
    """Return one small picture of every kind that is read."""
    from PIL import Image

    rows, columns = np.mgrid[0:24, 0:32]
    pixels = np.dstack([rows * 9, columns * 7, 255 - rows * 4 - columns]).astype(np.uint8)
    picture, turn = Image.fromarray(pixels), Image.Exif()
    turn[0x0112] = 6

    def encoded(form: str, mode: str = "RGB", **options: Any) -> bytes:
        file = BytesIO()
        picture.convert(mode).save(file, form, **options)
        return file.getvalue()

    return (
        *(encoded("JPEG", exif=turn), encoded("JPEG", progressive=True), encoded("JPEG", "CMYK")),
        *(encoded("PNG"), encoded("PNG", "P"), encoded("PNG", "RGBA"), encoded("PNG", "I;16")),
        *(encoded("WEBP", exif=turn), encoded("WEBP", lossless=True), encoded("WEBP", "RGBA")),
        *(encoded("BMP"), encoded("BMP", "P"), encoded("BMP", "L")),
    )


@cache
def contracts() -> tuple[bytes, ...]:
    """Return contracts of several kinds: integers, float, several labels."""
    tflite, onnx = (tiny_contract(form) for form in ("tflite", "onnx"))
    several = Output("sigmoid", activation="sigmoid", thresholds=(0.1, 0.2, 0.3, 0.4))
    found = (tflite, onnx, replace(onnx, output=several, labels=onnx.labels[:2]))
    return tuple(contract.to_json().encode() for contract in found)


@cache
def golden() -> bytes:
    """Return a golden set of two pictures."""
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    digests, ids = np.zeros((2, 32), np.uint8), np.array(["t0", "t1"])
    sure = np.ones(2, np.float32)
    return Golden((b"one", b"two"), digests, digests, rows, rows, rows, ids, sure).to_bytes()


@cache
def sketch() -> Sketch:
    """Return the sketch of 60 images of four classes, two of them with a group of their own."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(0, 1, (60, len(STATISTICS))).astype(np.float32)
    return sketch_of(Seen(rows, np.arange(60) % 9 // 4, rows[:, 0] > 0.3), 4)


def field_state() -> bytes:
    """Return the state of a stream's tests after some frames."""
    evidence = FieldTests(sketch())
    for time in range(9):
        evidence.add(MeasuredFrame(sketch().edges[:, 3 * time], time % 4, (time % 4,), float(time)))
    return state.to_bytes(evidence, "sha256:x")


def golden_names() -> list[str]:
    """Return the members of a golden set."""
    with ZipFile(BytesIO(golden())) as archive:
        return archive.namelist()


@cache
def model(form: str) -> bytes:
    """Return a tiny model, unsealed."""
    return (MODELS / f"tiny.{form}").read_bytes()


def float_program() -> bytes:
    """Return a float network of many kinds of operators."""
    return (MODELS / "float.tflite").read_bytes()


def members(form: str) -> Members:
    """Return what a seal puts into a file."""
    return {
        CONTRACT: contracts()[form == "onnx"],
        GOLDEN: golden(),
        SKETCH: sketch().to_bytes(),
        "labels.txt": b"red\nblue\n",
    }


@cache
def artefact(form: str) -> bytes:
    """Return a tiny model, sealed."""
    contract = Contract.from_json(members(form)[CONTRACT])
    return seal(form, model(form), contract, Golden.from_bytes(golden()))


@cache
def metadata() -> tuple[bytes, ...]:
    """Return a tiny model with TFLite Metadata, and one without."""
    described = describe(model("tflite"), tiny_contract("tflite"))
    return described.content, model("tflite")


def zipped(found: Members, method: int = 0) -> bytes:
    """Return an archive, with what zipfile refuses to write left out."""
    file = BytesIO()
    with ZipFile(file, "w", method) as archive:
        for name, content in found.items():
            archive.writestr(ZipInfo(name), content, method)
    return file.getvalue()


def archives() -> tuple[bytes, ...]:
    """Return archives of text, stored and deflated, and an empty one."""
    texts = {"a.txt": b"text " * 50, "b/c.json": b"{}", "kedge/x": b""}
    return zipped(texts), zipped(texts, ZIP_DEFLATED), zipped({})


def arrays() -> Members:
    """Return arrays as numpy.save writes them, one of every kind."""
    kinds = {"f": np.eye(3, dtype="<f4"), "u": np.arange(9, dtype=np.uint8), "t": np.array(["a"])}
    found = {}
    for name, array in {**kinds, "none": np.zeros((0, 4), "<i8"), "b": np.ones(2, bool)}.items():
        file = BytesIO()
        np.save(file, array)
        found[f"{name}.npy"] = file.getvalue()
    return found


def labels() -> tuple[bytes, ...]:
    """Return label files with ids, without, and with numbers and a byte order mark."""
    return (
        b"red\ngreen\nblue\n",
        "t0\tred\nt1\tgr\u00fcn\r\nt2\tblue".encode(),
        b"\xef\xbb\xbf0 cat\n1 dog\n",
    )


def truths() -> tuple[bytes, ...]:
    """Return tables of true classes."""
    rows = b"file,label\n0.png,red\nfolder/1.png,1\n"
    return rows, b"0.png t0\n1.png t1\n", b'"0.png","red"\n"1.png","blue"\n'


@cache
def reference() -> bytes:
    """Return a reference's answers to two images."""
    facts = replace(ReferenceFacts.of(tiny_contract("tflite")), failed=(Failure("x.png", "no"),))
    answers = np.arange(8, dtype=np.float32).reshape(2, 4)
    recorded = Recorded(["a.png", "b.png"], np.zeros((2, 32), np.uint8), answers)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "r.npz"
        write_reference(path, facts, lambda: [recorded])
        return path.read_bytes()


@cache
def journal() -> bytes:
    """Return the notes of two finished shards."""
    digests, outputs = np.zeros((1, 32), np.uint8), np.ones((1, 4), np.float32)
    one, two = (Recorded([name], digests, outputs) for name in ("a.png", "b.png"))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "j.journal"
        with Journal(path, WORK, AnswersCodec(SHARDS)) as notes:
            notes.add(0, Answers(one, (Failure("x.png", "no"),)))
            notes.add(1, Answers(two))
        return path.read_bytes()


@cache
def entry() -> bytes:
    """Return an entry of the build's cache that names no file."""
    with TemporaryDirectory() as folder:
        cache = Cache(Path(folder))
        cache.open()
        cache.put(KEY, {"digest": "sha256:0", "bytes": 5, "reasons": [], "parity": {"images": 2}})
        return (Path(folder) / "entries" / f"{KEY}.json").read_bytes()


@cache
def lock() -> bytes:
    """Return a lock file with two artefacts, one of them measured."""
    plain, measured = Accepted("sha256:" + "0" * 64, 5), Accepted("sha256:1", 6, 0.01, 0.97)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kedge.lock.toml"
        write(path, Lock({"demo.int8.tflite": plain, "demo.float32.onnx": measured}))
        return path.read_bytes()


def cards() -> tuple[bytes, ...]:
    """Return two of the zoo's cards."""
    texts = toml.texts("cards")
    return tuple(texts[name].encode() for name in ("MobileNet", "EfficientNetB0"))


def facts() -> tuple[bytes, ...]:
    """Return what a person says of a foreign file."""
    whole = json.loads(contracts()[1])
    del whole["provenance"], whole["output"]["tensor"]
    return json.dumps(whole).encode(), json.dumps({**whole, "labels": "labels.txt"}).encode()


@cache
def key() -> PrivateKey:
    """Return the same key in each run, so that a finding can be repeated."""
    return PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))


@cache
def trust() -> Trust:
    """Return what demands that key."""
    return Trust(key().public)


@cache
def signed(form: str) -> bytes:
    """Return an artefact with a signature."""
    content = ModelContent(Path(f"x.{form}"), form, artefact(form))
    return signing.signed(content, key(), serial=7)
