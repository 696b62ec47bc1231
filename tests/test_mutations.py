"""Two hundred changes to a sealed file of real size, in each format: refused, and none is run."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from kedge_runtime import Classifier
from kedge_runtime.artefact.content import digest
from kedge_runtime.artefact.file import CONTRACT, read_artefact
from kedge_runtime.classify import classifier
from kedge_runtime.errors import KedgeError

NAMES = ["demo.int8.tflite", "demo.float32.onnx"]
Random = np.random.Generator


def _bit_flipped(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    changed[random.integers(len(content))] ^= 1 << random.integers(8)
    return bytes(changed)


def _cut(content: bytes, random: Random) -> bytes:
    return content[: random.integers(len(content))]


def _zeroed(content: bytes, random: Random) -> bytes:
    """Lose a block of a disk; one of zeros already is no change."""
    while True:
        start = int(random.integers(len(content)))
        changed = content[:start] + bytes(len(content[start : start + 4096]))
        changed += content[start + 4096 :]
        if changed != content:
            return changed


def _joined(content: bytes, random: Random) -> bytes:
    return content + random.bytes(int(random.integers(1, 100)))


def _labels_swapped(content: bytes, random: Random) -> bytes:
    """Write two labels' names in each other's place, and leave the seal as it is."""
    one, other = random.choice(LABELS, 2, replace=False)
    names = {f'"name":"{one}"'.encode(): f'"name":"{other}"'.encode()}
    names |= {after: before for before, after in names.items()}
    return _rewritten(content, names)


LABELS = ("arrow", "cross", "fish", "heart", "house", "key", "moon", "ring", "star", "umbrella")


def _contract_edited(content: bytes, random: Random) -> bytes:
    before, after = EDITS[random.integers(len(EDITS))]
    return _rewritten(content, {before: after})


EDITS = (
    (b'"colour":"rgb"', b'"colour":"bgr"'),
    (b'"fit":"crop"', b'"fit":"stretch"'),
    (b'"resize":"pyramid"', b'"resize":"nearest"'),
    (b'"crop_fraction":0.875', b'"crop_fraction":1.0'),
    (b'"divisor":127.5', b'"divisor":255.0'),
    (b'"temperature":1.0', b'"temperature":9.0'),
    (b'"label_offset":0', b'"label_offset":1'),
    (b'"kind":"logits"', b'"kind":"softmax"'),
)


def _rewritten(content: bytes, words: dict[bytes, bytes]) -> bytes:
    """Replace words of the contract as an editor of the format would: the zip is written anew."""
    if not content.startswith(b"TFL3", 4):
        return _replaced(content, words)
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        members = {name: old.read(name) for name in old.namelist()}
        start, comment = old.infolist()[0].header_offset, old.comment
    members[CONTRACT] = _replaced(members[CONTRACT], words)
    file = io.BytesIO(content[:start])
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as new:
        for name, member in members.items():
            new.writestr(name, member)
        new.comment = comment
    return file.getvalue()


def _replaced(content: bytes, words: dict[bytes, bytes]) -> bytes:
    assert all(word in content for word in words), words
    # All at once, so that two words can change places.
    for i, before in enumerate(words):
        content = content.replace(before, b"\0%d\0" % i)
    for i, after in enumerate(words.values()):
        content = content.replace(b"\0%d\0" % i, after)
    return content


# 200 in all; each takes the file and the dice.
MUTATIONS: dict[Callable[[bytes, Random], bytes], int] = {
    _bit_flipped: 110,
    _cut: 30,
    _zeroed: 15,
    _joined: 5,
    _labels_swapped: 20,
    _contract_edited: 20,
}


@pytest.mark.parametrize("name", NAMES)
def test_two_hundred_changed_artefacts_are_refused_and_none_is_run(
    demo_artefacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def opened(*_: object) -> NoReturn:
        raise AssertionError("an engine was opened")

    monkeypatch.setattr(classifier, "open_engine", opened)
    random, content, path = np.random.default_rng(3), (demo_artefacts / name).read_bytes(), tmp_path
    path /= name
    refused = 0
    for mutation, count in MUTATIONS.items():
        for _ in range(count):
            changed = mutation(content, random)
            assert changed != content
            path.write_bytes(changed)
            with pytest.raises(KedgeError):
                Classifier.open(path)
            refused += 1
    assert refused == 200


@pytest.mark.parametrize("name", NAMES)
def test_an_editor_that_changes_nothing_is_the_control(
    demo_artefacts: Path, tmp_path: Path, name: str
) -> None:
    """What `_rewritten` makes is readable but for the seal: it is the seal that refuses it."""
    content = (demo_artefacts / name).read_bytes()
    edited = _rewritten(content, dict(EDITS[:1]))
    path = tmp_path / name
    path.write_bytes(edited[:-71] + digest(edited[:-71]))
    assert read_artefact(path).contract.input.normalisation.colour == "bgr"
