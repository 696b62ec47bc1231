"""`kedge calibrate-check`: each fault of a folder is found, and a good folder passes."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conftest import Run
from kedge_convert.calibration import classes, enough, files
from kedge_convert.calibration.enough import ImageRanges
from kedge_models.demo import pictograms
from kedge_runtime.arrays import Pixels
from kedge_runtime.artefact.contract import Label, Output

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
IMAGES = 60


@pytest.fixture
def folder(shared: Path, tmp_path: Path) -> Path:
    """Return a folder of real photos, without any fault."""
    place = tmp_path / "photos"
    place.mkdir()
    for photo in sorted((shared / "data" / "images").iterdir())[:IMAGES]:
        (place / photo.name).symlink_to(photo)
    return place


def read(path: Path) -> Pixels:
    return np.asarray(cv2.imread(str(path)), np.uint8)


def checked(kedge: Run, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Return the exit code, and the findings by their check."""
    code, out, _ = kedge("calibrate-check", *arguments, "--json")
    report = json.loads(out)
    assert report["passed"] == (code == 0)
    return code, {each["check"]: each for each in report["findings"]}


def names(finding: dict[str, Any]) -> list[str]:
    return [Path(image).name for image in finding["images"]]


def test_a_good_folder_passes(folder: Path, kedge: Run) -> None:
    code, found = checked(kedge, folder, "--calibrate-count", IMAGES)
    assert code == 0
    assert {each["status"] for each in found.values()} == {"ok", "open"}
    assert found["number"]["result"] == f"{IMAGES} usable images of {IMAGES}"


def test_each_fault_is_found_where_it_is(folder: Path, kedge: Run) -> None:
    photos = sorted(folder.iterdir())
    shutil.copy(photos[0], folder / "zz-copy.JPEG")
    cv2.imwrite(str(folder / "zz-pixels.png"), read(photos[1]))
    small = cv2.resize(read(photos[2]), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / "zz-small.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 60])
    cv2.imwrite(str(folder / "zz-blank.png"), np.full((200, 300, 3), 128, np.uint8))
    (folder / "zz-damaged.jpg").write_bytes(photos[3].read_bytes()[:2000])
    code, found = checked(kedge, folder, "--calibrate-count", IMAGES)
    assert code == 1
    assert names(found["copies of a file"]) == ["zz-copy.JPEG"]
    assert names(found["files with equal pixels"]) == ["zz-pixels.png"]
    assert names(found["near copies"]) == ["zz-small.jpg"]
    assert names(found["images of one colour"]) == ["zz-blank.png"]
    assert names(found["unreadable images"]) == ["zz-damaged.jpg"]
    assert [name for name, each in found.items() if each["status"] == "problem"] == [
        "unreadable images"
    ]


def test_images_of_other_kinds_are_counted_and_named(folder: Path, kedge: Run) -> None:
    (folder / "zz-moving.gif").write_bytes(b"GIF89a")
    (folder / "zz-phone.HEIC").write_bytes(b"")
    code, found = checked(kedge, folder, "--calibrate-count", IMAGES)
    others = found["files of other kinds"]
    assert (code, others["status"]) == (0, "note")
    assert names(others) == ["zz-moving.gif", "zz-phone.HEIC"]
    assert others["result"] == "2 left out (.HEIC 1, .gif 1): zz-moving.gif, zz-phone.HEIC"
    assert "JPEG or PNG" in others["remedy"]
    assert found["number"]["result"] == f"{IMAGES} usable images of {IMAGES}"


def test_frames_of_one_scene_are_a_problem(shared: Path, tmp_path: Path, kedge: Run) -> None:
    scene = read(sorted((shared / "data" / "images").iterdir())[0])
    for i in range(20):
        moved = np.roll(scene, i // 4, axis=1)
        cv2.imwrite(str(tmp_path / f"{i:02}.jpg"), moved, [cv2.IMWRITE_JPEG_QUALITY, 70 + i])
    code, out, _ = kedge("calibrate-check", tmp_path)
    assert code == 1
    assert "problem: near copies: remove them" in out.replace("\n", " ")


def test_too_few_images_are_a_problem(shared: Path, tmp_path: Path, kedge: Run) -> None:
    for photo in sorted((shared / "data" / "images").iterdir())[:9]:
        shutil.copy(photo, tmp_path)
    code, found = checked(kedge, tmp_path)
    assert (code, found["number"]["status"]) == (1, "problem")


def by_class(folder: Path, count: int) -> Path:
    """Render pictograms, one folder for each class."""
    for path in pictograms.write(folder, count, 3):
        (place := folder / path.stem.partition("_")[0]).mkdir(exist_ok=True)
        path.rename(place / path.name)
    return folder


def test_the_demo_sees_its_own_pictograms(tmp_path: Path, kedge: Run) -> None:
    by_class(tmp_path, 60)
    code, found = checked(kedge, tmp_path, "--model", "demo", "--calibrate-count", 60)
    assert code == 0, found
    assert found["classes"]["result"] == "10 classes of 6 usable images"
    assert "sees 10 of 10 classes in 60 images" in found["answers"]["result"]
    assert {found[name]["status"] for name in ("distribution", "enough", "answers")} == {"ok"}


def test_a_class_without_images_is_a_problem(tmp_path: Path, kedge: Run) -> None:
    by_class(tmp_path, 60)
    for name in ("moon", "key"):
        shutil.rmtree(tmp_path / name)
    code, found = checked(kedge, tmp_path, "--model", "demo", "--calibrate-count", 20)
    assert code == 1
    assert found["classes"]["result"] == "2 of 10 classes have no image: key, moon"


@pytest.mark.parametrize(
    ("outputs", "images", "right", "status"),
    [
        (2, 200, 200, "ok"),
        (2, 200, 160, "ok"),
        (2, 200, 100, "problem"),
        (2, 10, 8, "ok"),  # ten images can't tell
        (3, 200, 190, "ok"),
        (4, 200, 106, "ok"),
        (4, 200, 50, "problem"),
        (1000, 200, 100, "ok"),
        (1000, 200, 6, "problem"),  # many times a guess, and still a fault
    ],
)
def test_answers_are_a_problem_where_they_are_guesses(
    outputs: int, images: int, right: int, status: str
) -> None:
    """`images` of all classes in turn; a wrong answer is the next class."""
    paths = [Path(f"{i}.jpg") for i in range(images)]
    truth = {path: i % outputs for i, path in enumerate(paths)}
    best = [truth[path] + (i >= right) for i, path in enumerate(paths)]
    logits = np.eye(outputs, dtype=np.float32)[np.array(best) % outputs]
    labels = [Label(str(i), str(i)) for i in range(outputs)]
    found = classes.predicted(logits, paths, truth, (Output("softmax"), labels))
    assert found.status == status, found.result


def test_photos_are_not_what_the_demo_was_trained_for(folder: Path, kedge: Run) -> None:
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 256, (96, 96, 3), np.uint8)
        cv2.imwrite(str(folder / f"zz-noise-{i}.png"), noise)
    code, found = checked(kedge, folder, "--model", "demo", "--calibrate-count", IMAGES + 3)
    assert code == 1
    assert found["distribution"]["status"] == "problem"
    assert "fit-input" in found["distribution"]["remedy"]


def test_an_artefact_knows_its_own_images_and_no_darker_ones(
    tmp_path: Path, demo_images: tuple[Path, Path], kedge: Run
) -> None:
    artefact, images = demo_images
    code, found = checked(kedge, images, "--model", artefact)
    assert (code, found["distribution"]["status"], found["enough"]["status"]) == (0, "ok", "open")
    for path in images.iterdir():
        cv2.imwrite(str(tmp_path / path.name), read(path) // 4)
    code, found = checked(kedge, tmp_path, "--model", artefact)
    assert code == 1
    assert "darker" in found["distribution"]["result"]


def test_an_artefact_without_a_sketch_leaves_the_distribution_open(
    artefacts: Path, folder: Path, kedge: Run
) -> None:
    code, found = checked(kedge, folder, "--model", artefacts / "tiny.tflite")
    assert (code, found["distribution"]["status"]) == (0, "open")
    assert "no sketch" in found["distribution"]["result"]


@pytest.fixture(scope="module")
def demo_images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the demo, converted with images of its own, and the images."""
    from kedge_convert.commands.convert import convert

    images, out = (tmp_path_factory.mktemp(name) for name in ("images", "out"))
    pictograms.write(images, 120, 4)
    places = ["--calibrate", str(images), "--out", str(out)]
    arguments = ["demo", "--to", "onnx:float32", *places, "--calibrate-count", "80"]
    convert.main([*arguments, "--check-count", "40"], standalone_mode=False)
    return out / "demo.float32.onnx", images


@pytest.mark.parametrize("option", [["--card", "MobileNet"], ["--preprocess", "load_img"]])
def test_options_of_a_model_need_one(folder: Path, kedge: Run, option: list[str]) -> None:
    code, out, err = kedge("calibrate-check", folder, *option)
    assert (code, out) == (2, "")
    assert f"{option[0]}" in err
    assert "needs --model" in err


def mean_range(count: int) -> float:
    """Return the mean range of normal numbers, by integration (Tippett 1925)."""
    x = np.linspace(-8, 8, 4001)
    below = np.array([(1 + math.erf(each / math.sqrt(2))) / 2 for each in x])
    return float((1 - below**count - (1 - below) ** count).sum() * (x[1] - x[0]))


@pytest.mark.parametrize("count", [32, 64, 128])
def test_ranges_grow_as_those_of_normal_numbers(count: int) -> None:
    values = np.random.default_rng(0).normal(0, 1, (256, 600)).astype(np.float32)
    found = enough.growth(ImageRanges(values, values), count)
    assert 1 + found == pytest.approx(mean_range(count) / mean_range(count // 2), rel=0.02)


def test_unstable_ranges_ask_for_more_images() -> None:
    """One image in a hundred doubles a range: so many images can't be enough."""
    rng = np.random.default_rng(1)
    high = rng.lognormal(0, 1.2, (32, 50)).astype(np.float32)
    finding = enough.finding(ImageRanges(-high, high))
    assert finding.status == "problem"
    assert "--calibrate-count" in finding.remedy
    stable = ImageRanges(np.full((32, 50), -1, np.float32), np.full((32, 50), 1, np.float32))
    assert enough.finding(stable).status == "ok"


def test_an_image_that_widens_the_ranges_is_odd() -> None:
    values = np.random.default_rng(2).normal(1, 0.2, (40, 50)).clip(0).astype(np.float32)
    values[7] *= 3
    paths = [Path(f"{i}.jpg") for i in range(40)]
    found = enough.odd(ImageRanges(np.zeros_like(values), values), paths)
    assert (found.status, found.images) == ("note", (Path("7.jpg"),))
    assert enough.odd(ImageRanges(values[8:] * 0, values[8:]), paths[8:]).status == "ok"


def test_near_copies_across_blocks_are_found(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = sorted((shared / "data" / "images").iterdir())[:12]
    looks = files.read(photos).looks
    doubled = {Path(f"{i}/{path.name}"): look for i in (1, 2) for path, look in looks.items()}
    monkeypatch.setattr(files, "ROWS", 5)
    assert files.near_copies(doubled) == tuple(list(doubled)[12:])
