"""The label lists: ours against Keras and the photos, the user's good and bad."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from kedge_models.cards import imagenet, shipped
from kedge_runtime.artefact.contract import Label
from kedge_runtime.artefact.labels import read_labels, without_numbers
from kedge_runtime.errors import UsageError

ROOT = Path(__file__).parents[1]
PHOTOS = Path(os.environ.get("KEDGE_SHARED", ROOT.parent / "shared")) / "data" / "images"

# `file_hash` of imagenet_class_index.json in keras/src/applications/imagenet_utils.py.
KERAS_CLASS_INDEX_MD5 = "c2c37ea517e94d9795004a39431a14cb"


def test_imagenet_has_1000_classes_in_the_order_of_the_synsets() -> None:
    ids = [label.id for label in imagenet()]
    assert len(ids) == 1000
    assert ids == sorted(set(ids))


@pytest.mark.parametrize(
    ("index", "label"),
    [
        (0, Label("n01440764", "tench")),
        (2, Label("n01484850", "great_white_shark")),
        (134, Label("n02012849", "crane")),
        (151, Label("n02085620", "Chihuahua")),
        (212, Label("n02100735", "English_setter")),
        (517, Label("n03126707", "crane")),
        (999, Label("n15075141", "toilet_tissue")),
    ],
)
def test_known_classes(index: int, label: Label) -> None:
    assert imagenet()[index] == label


def test_imagenet_is_the_file_that_keras_decodes_with() -> None:
    """The same names in the same order, to the byte: Keras pins its file by this very digest."""
    index = {str(i): [label.id, label.name] for i, label in enumerate(imagenet())}
    digest = hashlib.md5(json.dumps(index).encode(), usedforsecurity=False).hexdigest()
    assert digest == KERAS_CLASS_INDEX_MD5


@pytest.mark.shared
def test_photos_are_named_after_every_second_class() -> None:
    if not PHOTOS.is_dir():
        pytest.skip("no data/images in the shared folder: set KEDGE_SHARED")
    names = [path.stem for path in sorted(PHOTOS.iterdir())]
    assert names == [f"{label.id}_{label.name}" for label in imagenet()[::2]]


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        (b"cat\ndog\n", [("cat", "cat"), ("dog", "dog")]),
        (b"cat\ndog", [("cat", "cat"), ("dog", "dog")]),
        (b"cat\ndog\n\n", [("cat", "cat"), ("dog", "dog")]),
        (b"\xef\xbb\xbfcat\r\ndog\r\n", [("cat", "cat"), ("dog", "dog")]),
        (b"n1\tcrane\nn2\tcrane\n", [("n1", "crane"), ("n2", "crane")]),
        ("ä\tBär\n".encode(), [("ä", "Bär")]),
        (b"[cat]\n{dog}\n", [("[cat]", "[cat]"), ("{dog}", "{dog}")]),
        (b"two words\n", [("two words", "two words")]),
    ],
)
def test_users_file(tmp_path: Path, content: bytes, labels: list[tuple[str, str]]) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    assert read_labels(path) == tuple(Label(*pair) for pair in labels)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"cat\n\ndog\n", "labels.txt:2: got ''"),
        (b"\ncat\n", "labels.txt:1: got ''"),
        (b"cat\t\ndog\n", "labels.txt:1: got 'cat\\t'"),
        (b"cat\ndog\t\n", "labels.txt:2: got 'dog\\t'"),
        (b"\tcat\n", "labels.txt:1"),
        (b"crane\ncat\ncrane\n", "'crane' stands in lines 1 and 3"),
        (b'["cat", "dog"]', "labels.txt is JSON: write one class a line"),
        (b'{"0": "cat",\n"1": "dog"}\n', "labels.txt is JSON: write one class a line"),
        (b"\xff\xfe", "is no UTF-8 at byte 0"),
    ],
)
def test_users_file_that_is_wrong(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        read_labels(path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ("0 cat\n1 dog", ["cat", "dog"]),
        ("0  cat\n1  big dog", ["cat", "big dog"]),
        ("0: cat\n1: dog", ["cat", "dog"]),
        ("00 cat\n01 dog", ["cat", "dog"]),
        ("cat\ndog", ["cat", "dog"]),
        ("1 cat\n2 dog", ["1 cat", "2 dog"]),
        ("0 cat\n2 dog", ["0 cat", "2 dog"]),
        ("0 cat\ndog", ["0 cat", "dog"]),
        ("0 legs\n1 leg\n2 legs", ["0 legs", "1 leg", "2 legs"]),
        ("0\n1", ["0", "1"]),
        ("n0\t0 cat\nn1\t1 dog", ["0 cat", "1 dog"]),
    ],
)
def test_numbers_before_names(tmp_path: Path, lines: str, names: list[str]) -> None:
    (tmp_path / "labels.txt").write_text(lines)
    labels = read_labels(tmp_path / "labels.txt")
    assert [label.name for label in without_numbers(labels)] == names


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_labels(tmp_path / "none.txt")
    with pytest.raises(UsageError, match="Is a directory"):
        read_labels(tmp_path)


def test_an_unknown_list_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"kedge ships .*imagenet"):
        shipped("imagnet")
