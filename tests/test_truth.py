"""True classes: from file names, folders and tables, and what is refused."""

from pathlib import Path

import pytest

from kedge_models.cards import imagenet
from kedge_models.demo import shapes
from kedge_runtime.artefact.contract import Label
from kedge_runtime.drift.truth import read_truth
from kedge_runtime.errors import UsageError

LABELS = (
    Label("n01440764", "tench"),
    Label("n01491361", "tiger_shark"),
    Label("n02012849", "crane"),
    Label("n03126707", "crane"),
    Label("7", "seven"),
)
TENCH, SHARK, BIRD, MACHINE, SEVEN = range(5)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("n01440764_tench.JPEG", TENCH),
        ("n01440764_10026.JPEG", TENCH),
        ("n03126707.jpg", MACHINE),
        # The file's own word goes before its folder's.
        ("tench/n01491361_1.jpg", SHARK),
        ("n02012849/1.jpg", BIRD),
        ("tench/1.jpg", TENCH),
        ("Tiger Shark/1.jpg", SHARK),
        ("tiger-shark/1.jpg", SHARK),
    ],
)
def test_names_and_folders(image: str, expected: int) -> None:
    path = Path("photos") / image
    assert read_truth([path], LABELS) == {path: expected}


def test_the_real_photos(shared: Path) -> None:
    photos = sorted((shared / "data" / "images").iterdir())
    truth = read_truth(photos, imagenet())
    assert truth is not None
    assert len(truth) == len(photos) > 100
    # The rest of each file's name is the class's name as ImageNet's own list spells it.
    for photo, index in truth.items():
        synset, _, name = photo.stem.partition("_")
        label = imagenet()[index]
        assert label.id == synset
        assert label.name.casefold().replace("-", "_") == name.casefold().replace("-", "_")


def test_nothing_tells() -> None:
    assert read_truth([Path("photos/a.jpg"), Path("photos/b.jpg")], LABELS) is None


def test_a_name_before_the_number_is_no_id() -> None:
    assert read_truth(sorted(shapes.SAMPLES.iterdir()), shapes.LABELS) is None


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("file,label\na.jpg,tench\nb/c.jpg,n03126707\n", [TENCH, MACHINE]),
        # Quotes are CSV's.
        ('"a.jpg","Tiger shark"\nphotos/b/c.jpg,7\n', [SHARK, SEVEN]),
        ("\ufeffa.jpg, tench\r\nb\\c.jpg, 7\r\n\r\nunused.jpg,tench\r\n", [TENCH, SEVEN]),
        # The longest end of a path counts.
        ("c.jpg,tench\na.jpg,tench\nb/c.jpg,tiger_shark\n", [TENCH, SHARK]),
    ],
)
def test_tables(tmp_path: Path, rows: str, expected: list[int]) -> None:
    table = tmp_path / "truth.csv"
    table.write_bytes(rows.encode())
    images = [Path("photos/a.jpg"), Path("photos/b/c.jpg")]
    assert read_truth(images, LABELS, table) == dict(zip(images, expected, strict=True))


def test_indices_where_no_class_is_called_by_another_number(tmp_path: Path) -> None:
    table, images = tmp_path / "truth.csv", [Path("a.jpg"), Path("b.jpg")]
    table.write_text("a.jpg,0\nb.jpg,2\n")
    for words in (("cat", "dog", "fox"), ("0", "1", "2")):
        labels = tuple(Label(word, word) for word in words)
        assert read_truth(images, labels, table) == {images[0]: 0, images[1]: 2}
    labels = tuple(Label(word, word) for word in ("1", "2", "3"))
    with pytest.raises(UsageError, match=r"'0' is not a class; .*no index, because '1' is a class"):
        read_truth(images, labels, table)


def test_a_table_goes_before_names(tmp_path: Path) -> None:
    table = tmp_path / "truth.csv"
    table.write_text("n01440764_tench.JPEG,tiger_shark\n")
    image = Path("photos/n01440764_tench.JPEG")
    assert read_truth([image], LABELS, table) == {image: SHARK}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["n01440764_1.jpg", "b.jpg"], "file names: a class for 1 image, but none for 1: b.jpg"),
        (["tench/1.jpg", "others/2.jpg"], "folders: a class for .* none for 1: 2.jpg"),
        (["crane/1.jpg"], "'crane' names the classes n02012849, n03126707"),
    ],
)
def test_refused_names(images: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_truth([Path("photos") / image for image in images], LABELS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a.jpg,whale\n", "'whale' is not a class"),
        (b"a.jpg,5\n", "'5' is not a class"),
        (b"a.jpg,-1\n", "'-1' is not a class"),
        (b"a.jpg,crane\n", "names the classes n02012849, n03126707"),
        (b"b.jpg,tench\n", "none for 1: a.jpg"),
        (b"", "none for 1: a.jpg"),
        (
            b"a.jpg,tench\na.jpg,Tench\na.jpg,7\n",
            "a.jpg has the labels 'tench' and '7'; remove one",
        ),
        (b"a.jpg,tench,sure\n", ":1: has 3 columns"),
        (b"a.jpg\n", ":1: has 1 columns"),
        (b"a.jpg,\xff\n", "not a CSV file in UTF-8"),
    ],
)
def test_refused_tables(tmp_path: Path, content: bytes, message: str) -> None:
    table = tmp_path / "truth.csv"
    table.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_truth([Path("photos/a.jpg")], LABELS, table)


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"truth.csv: can't be read"):
        read_truth([Path("a.jpg")], LABELS, tmp_path / "truth.csv")
