"""The files that tell the classes of ILSVRC's validation images, and their trap."""

from pathlib import Path

import numpy as np
import pytest

from kedge_models.cards import imagenet
from kedge_runtime.drift.truth import GROUND_TRUTH, META, read_truth, truth_by
from kedge_runtime.errors import UsageError

io = pytest.importorskip("scipy.io")

NUMBERS = [490, 361, 171, 822, 297]
IMAGES = [Path(f"val/ILSVRC2012_val_{number:08}.JPEG") for number in range(1, 6)]


def _order() -> list[str]:
    """Return the synsets in an order of our own: the kit's isn't theirs either."""
    ids = [label.id for label in imagenet()]
    return [ids[i] for i in np.random.default_rng(0).permutation(1000)]


@pytest.fixture(params=[True, False], ids=["packed", "plain"])
def kit(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a development kit as MATLAB's own format has it: classes first, then their parents."""
    (tmp_path / "data").mkdir()
    synsets = np.zeros(1003, [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")])
    names = [*_order(), "n00001740", "n00001930", "n00002137"]
    for number, (row, name) in enumerate(zip(synsets, names, strict=True), 1):
        row["ILSVRC2012_ID"], row["WNID"], row["words"] = float(number), name, f"word {number}"
    meta = {"synsets": synsets[:, None]}
    io.savemat(tmp_path / "data" / META, meta, do_compression=request.param)
    (tmp_path / "data" / GROUND_TRUTH).write_text("".join(f"{number}\n" for number in NUMBERS))
    return tmp_path


def _expected() -> dict[Path, int]:
    ids = {label.id: i for i, label in enumerate(imagenet())}
    return {image: ids[_order()[number - 1]] for image, number in zip(IMAGES, NUMBERS, strict=True)}


@pytest.mark.parametrize("place", ["", "data", f"data/{GROUND_TRUTH}"])
def test_the_development_kit(kit: Path, place: str) -> None:
    found = truth_by(str(kit / place), IMAGES, imagenet())
    assert found == _expected()
    # The trap: a number less one is another class.
    assert found is not None
    assert [found[image] for image in IMAGES] != [number - 1 for number in NUMBERS]


def test_numbers_without_their_meaning_are_refused(kit: Path) -> None:
    (kit / "data" / META).unlink()
    with pytest.raises(
        UsageError, match=r"numbers don't follow the order of the synsets.*meta.mat"
    ):
        read_truth(IMAGES, imagenet(), kit / "data" / GROUND_TRUTH)


def test_a_list_of_synsets(tmp_path: Path) -> None:
    lines = [_order()[number - 1] for number in NUMBERS]
    (tmp_path / "labels.txt").write_text("\n".join(lines) + "\n")
    assert read_truth(IMAGES[::-1], imagenet(), tmp_path / "labels.txt") == _expected()


def test_caffes_table_counts_outputs(tmp_path: Path) -> None:
    lines = [f"{image.name} {number}" for image, number in zip(IMAGES, NUMBERS, strict=True)]
    (tmp_path / "val.txt").write_text("\n".join(lines))
    expected = dict(zip(IMAGES, NUMBERS, strict=True))
    assert read_truth(IMAGES, imagenet(), tmp_path / "val.txt") == expected


def test_synset_folders() -> None:
    image = Path("val/n01484850/ILSVRC2012_val_00000004.JPEG")
    assert truth_by("folders", [image], imagenet()) == {image: 2}


def test_other_images_have_no_number(kit: Path) -> None:
    with pytest.raises(UsageError, match=r"none for 1: a\.jpg"):
        read_truth([*IMAGES, Path("a.jpg")], imagenet(), kit)


def test_a_image_beyond_the_list(kit: Path) -> None:
    beyond = Path("ILSVRC2012_val_00000006.JPEG")
    with pytest.raises(UsageError, match=r"none for 1: ILSVRC2012_val_00000006\.JPEG"):
        read_truth([*IMAGES, beyond], imagenet(), kit)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (GROUND_TRUTH, b"1\n1001\n", "has '1001', allowed are the numbers 1 to 1000"),
        (GROUND_TRUTH, b"0\n1\n", "has '0', allowed are the numbers 1 to 1000"),
        (META, b"short", "its first 1000 synsets are not the model's classes"),
        (META, bytes(128) + b"\x0f\0\0\0\x04\0\0\0oops", "not a MAT file of version 5"),
        (META, bytes(128) + b"\x0f\0", "not a MAT file of version 5"),
    ],
)
def test_damage(kit: Path, name: str, content: bytes, message: str) -> None:
    (kit / "data" / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_truth(IMAGES, imagenet(), kit)


def test_another_models_classes(kit: Path) -> None:
    with pytest.raises(UsageError, match="its first 1000 synsets are not the model's classes"):
        read_truth(IMAGES, imagenet()[1:], kit)


def test_a_folder_that_is_no_kit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"there is no {GROUND_TRUTH} in it"):
        read_truth(IMAGES, imagenet(), tmp_path)


@pytest.mark.parametrize("how", ["synset", "folders"])
def test_a_scheme_that_tells_nothing(how: str) -> None:
    with pytest.raises(UsageError, match=f"--truth {how}: no f.* name"):
        truth_by(how, IMAGES, imagenet())
    assert truth_by("auto", IMAGES, imagenet()) is None
    assert truth_by("none", [Path("n01484850_1.jpg")], imagenet()) is None
