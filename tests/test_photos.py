"""Drawing pictures: what calibrates never checks, and what can't be read is skipped."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import Run
from foreign_files import WORDS
from kedge_convert import pipeline
from kedge_convert.images import MINIMUM, ImageSplit, collect, fitted, forget_others, readable
from kedge_convert.job import ImageRequest
from kedge_convert.sampling import Sampling
from kedge_convert.worker.progress import Event, ItemDone, Progress, StageStarted
from kedge_runtime.arrays import Pixels
from kedge_runtime.artefact.contract import Geometry, Input, Normalisation
from kedge_runtime.errors import UsageError
from kedge_runtime.image.decode import read_image
from kedge_runtime.image.folder import find_images, unread_files
from kedge_runtime.image.preprocessing import Preprocessor

FORMATS = (".jpg", ".png", ".webp", ".bmp", ".JPEG")


def paint(path: Path, seed: int) -> Path:
    """Write a small picture of its own in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


def gallery(folder: Path, count: int) -> Path:
    for i in range(count):
        paint(folder / f"{i:03}.bmp", i)
    return folder


def spoil(folder: Path) -> dict[str, Path]:
    """Write what people leave among their pictures."""
    whole = paint(folder / "whole.jpg", 1).read_bytes()
    (folder / "whole.jpg").unlink()
    contents = {"empty.jpg": b"", "text.png": b"not a picture", "cut.jpg": whole[: len(whole) // 3]}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "dangling.webp").symlink_to(folder / "nowhere")
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("count", "sampling", "calibration", "check"),
    [
        (40, Sampling(20, 10), 20, 10),
        (40, Sampling(10, 20), 10, 20),
        (40, Sampling(5, 30), 5, 30),
        (40, Sampling(1, 1), 1, 1),
        (40, Sampling(200, 100), 27, 13),
        (40, Sampling(30, 15), 27, 13),
        (40, Sampling(30, 4), 30, 4),
        (40, Sampling(12, 100), 12, 28),
        (MINIMUM, Sampling(), 7, 3),
        (11, Sampling(), 8, 3),
    ],
)
def test_how_many(
    tmp_path: Path, count: int, sampling: Sampling, calibration: int, check: int
) -> None:
    photos = collect(gallery(tmp_path, count), sampling)
    assert (len(photos.calibration), len(photos.validation)) == (calibration, check)
    assert set(photos.calibration).isdisjoint(photos.validation)
    assert len({*photos.calibration, *photos.validation}) == calibration + check


def test_the_draw_is_repeatable_and_seeded(tmp_path: Path) -> None:
    gallery(tmp_path, 40)
    first, again, other = (collect(tmp_path, Sampling(10, 10, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first.calibration != other.calibration


def test_the_draw_depends_on_names_only_not_on_the_disks_order(tmp_path: Path) -> None:
    gallery(tmp_path / "a", 20)
    for path in sorted((tmp_path / "a").iterdir(), reverse=True):
        (tmp_path / "b").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "b" / path.name)
    first, second = (collect(tmp_path / name, Sampling(10, 5)) for name in "ab")
    assert [path.name for path in first.validation] == [path.name for path in second.validation]


def test_any_mix_of_formats_at_any_depth(tmp_path: Path) -> None:
    for i in range(20):
        paint(tmp_path / f"depth{i % 3}" / ("x" * (i % 4)) / f"{i}{FORMATS[i % 5]}", i)
    (tmp_path / "notes.txt").write_text("no picture, no complaint")
    photos = collect(tmp_path, Sampling(14, 6))
    assert len(photos.calibration) + len(photos.validation) == 20
    assert {path.suffix for path in (*photos.calibration, *photos.validation)} == set(FORMATS)
    assert photos.broken == ()


def test_what_cannot_be_read_is_passed_over_and_listed(tmp_path: Path) -> None:
    broken = spoil(tmp_path)
    gallery(tmp_path, 20)
    photos = collect(tmp_path, Sampling())
    assert len(photos.calibration) + len(photos.validation) == 20
    assert set(photos.broken) == set(broken.values())


def test_linked_folders_are_searched_once_and_loops_end(tmp_path: Path) -> None:
    inside = paint(tmp_path / "in" / "cat" / "a.bmp", 1)
    outside = paint(tmp_path / "out" / "b.bmp", 2)
    (tmp_path / "in" / "an alias").symlink_to(inside.parent)
    (tmp_path / "in" / "linked").symlink_to(outside.parent)
    (outside.parent / "loop").symlink_to(tmp_path / "in")
    assert find_images(tmp_path / "in") == [inside, tmp_path / "in" / "linked" / "b.bmp"]


def test_folders_and_macs_shadows_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "._a.bmp").write_bytes(b"\0\5\x16\7")
    inside = paint(tmp_path / "album.jpg" / "a.bmp", 1)
    assert find_images(tmp_path) == [inside]


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "a.bmp", 1)
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refuse(place: str) -> object:
        if place.endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", place)
        return scan(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match=r"closed: permission denied; make it readable, or move"):
        find_images(tmp_path)


def test_broken_pictures_are_replaced_as_long_as_there_are_others(tmp_path: Path) -> None:
    gallery(tmp_path, 30)
    spoil(tmp_path)
    photos = collect(tmp_path, Sampling(20, 10))
    assert (len(photos.calibration), len(photos.validation)) == (20, 10)


def test_ticks_count_every_picture_looked_at(tmp_path: Path) -> None:
    ticks: list[None] = []
    collect(gallery(tmp_path, 30), Sampling(10, 5), lambda: ticks.append(None))
    assert len(ticks) == 15


def test_the_digest_is_of_the_contents_in_order(tmp_path: Path) -> None:
    first, second = paint(tmp_path / "a.bmp", 1), paint(tmp_path / "b.bmp", 2)
    parts = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in (first, second))
    expected = f"sha256:{hashlib.sha256(parts).hexdigest()}"
    assert ImageSplit((first, second), ()).calibration_digest() == expected
    assert ImageSplit((second, first), ()).calibration_digest() != expected


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--calibrate: .*nowhere: no such folder; give a folder"):
        collect(tmp_path / "nowhere", Sampling())


def test_a_folder_that_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--calibrate: .*: file name too long$"):
        collect(tmp_path / ("x" * 300), Sampling())


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        collect(paint(tmp_path / "a.bmp", 1), Sampling())


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no images in it"):
        collect(tmp_path, Sampling())


def test_too_few_pictures(tmp_path: Path) -> None:
    gallery(tmp_path, MINIMUM - 1)
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"9 usable images among 10 \(1 broken\), at least 10"):
        collect(tmp_path, Sampling())


@pytest.fixture
def real(shared: Path, tmp_path: Path) -> Path:
    """Return a folder of twenty real photos."""
    folder = tmp_path / "real"
    folder.mkdir()
    for path in sorted((shared / "data" / "images").iterdir())[:20]:
        shutil.copy(path, folder)
    return folder


def saved(path: Path, pixels: Pixels, *options: int) -> Path:
    assert cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    return path


def half(pixels: Pixels) -> Pixels:
    small = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def test_real_photos_are_all_used(real: Path) -> None:
    photos = collect(real, Sampling(14, 6))
    assert len({*photos.calibration, *photos.validation}) == 20
    assert (photos.blank, photos.repeated, photos.near_copies) == ((), (), 0)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_blank_pictures_are_passed_over(real: Path, suffix: str) -> None:
    colours = {"black": (0, 0, 0), "white": (255, 255, 255), "wall": (203, 190, 120)}
    blank = {
        saved(real / f"{name}{suffix}", np.full((90, 120, 3), colour, np.uint8))
        for name, colour in colours.items()
    }
    photos = collect(real, Sampling(14, 9))
    assert set(photos.blank) == blank
    assert len(photos.calibration) + len(photos.validation) == 20


def test_a_dim_photo_is_not_blank(real: Path) -> None:
    path = min(real.iterdir())
    dim = saved(path.with_suffix(".png"), read_image(path) // 10)
    assert dim not in collect(real, Sampling(14, 7)).blank


def test_the_same_picture_under_other_names_is_taken_once(real: Path) -> None:
    paths = sorted(real.iterdir())
    shutil.copy(paths[0], real / "copy.JPEG")
    saved(real / "other_format.png", read_image(paths[1]))
    for seed in range(4):
        photos = collect(real, Sampling(11, 11, seed))
        assert len(photos.repeated) == 2
        pixels = [read_image(path).tobytes() for path in (*photos.calibration, *photos.validation)]
        assert len(set(pixels)) == len(pixels) == 20


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda pixels: pixels[:, :, :], id="saved again"),
        pytest.param(lambda pixels: half(pixels), id="half its size"),
        pytest.param(lambda pixels: cv2.convertScaleAbs(pixels, alpha=1.1), id="brighter"),
    ],
)
def test_near_copies_are_counted(real: Path, change: Callable[[Pixels], Pixels]) -> None:
    copied = sorted(real.iterdir())
    for path in copied:
        saved(path.with_suffix(".jpg"), change(read_image(path)), cv2.IMWRITE_JPEG_QUALITY, 30)
    photos = collect(real, Sampling(20, 20))
    stems = {path.stem for path in photos.calibration}
    assert photos.near_copies == sum(path.stem in stems for path in photos.validation) > 0
    assert photos.repeated == ()


def test_too_few_that_are_different(real: Path) -> None:
    first = min(real.iterdir())
    for path in real.iterdir():
        if path != first:
            shutil.copy(first, path)
    saved(real / "white.png", np.full((9, 9, 3), 255, np.uint8))
    found = r"1 usable images among 21 \(.*\b19 repeated\b.*\), at least 10"
    with pytest.raises(UsageError, match=found):
        collect(real, Sampling())


@pytest.mark.parametrize("command", ["classify", "seal", "calibrate"])
def test_every_command_tells_pictures_of_other_kinds(
    foreign: Path, sealed: Path, labels: Path, kedge: Run, command: str
) -> None:
    place = gallery(sealed.parent / "gallery", 300)
    (place / "moving.gif").write_bytes(b"GIF89a")
    truth = sealed.with_name("truth.csv")
    names = ("red", "green", "blue", "dark")
    rows = [f"{each.name},{names[i % 4]}" for i, each in enumerate(sorted(place.glob("*.*")))]
    truth.write_text("\n".join(["file,label", *rows]))
    arguments = {
        "classify": (sealed, place),
        "seal": (foreign, "--labels", labels, *WORDS, "--images", place, "--out", sealed),
        "calibrate": (sealed, "--images", place, "--truth", truth),
    }
    code, _, err = kedge(command, *arguments[command])
    assert f"{place}: 1 file of another kind left out (.gif 1)" in err
    assert code == 0


def test_pictures_of_other_kinds_are_told(tmp_path: Path) -> None:
    gallery(tmp_path, 2)
    assert unread_files(tmp_path) == ""
    for name in ("a.HEIC", "deep/b.HEIC", "c.tif", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert unread_files(tmp_path) == "3 files of other kinds left out (.HEIC 2, .tif 1)"
    assert len(find_images(tmp_path)) == 2
    (tmp_path / "only" / "c.gif").parent.mkdir()
    (tmp_path / "only" / "c.gif").write_bytes(b"")
    with pytest.raises(UsageError, match=r"no images in it .*; 1 file of another kind left out"):
        find_images(tmp_path / "only")


@pytest.mark.parametrize(("count", "broken", "total"), [(200, 0, 12), (200, 2, 14), (4, 5, 8)])
def test_the_bar_ends_at_its_total(tmp_path: Path, count: int, broken: int, total: int) -> None:
    folder, spec = gallery(tmp_path / "in", 12), Input(Geometry(32, 24), Normalisation())
    for i in range(broken):
        (folder / f"{i}.png").write_bytes(b"")
    job, events = ImageRequest(folder, Sampling(count, 4)), list[Event]()
    with pipeline._images(job, spec, Progress(events.append)):
        assert (events[0], events.count(ItemDone())) == (StageStarted("read images", total), total)


def test_what_is_kept_as_images_are_drawn_is_what_a_later_read_gives(tmp_path: Path) -> None:
    folder = gallery(tmp_path, 12)
    spec = Input(Geometry(32, 24), Normalisation())
    split = collect(folder, Sampling(8, 4), spec=spec)
    plan, paths = Preprocessor(spec), (*split.calibration, *split.validation)
    assert len(paths) == 12
    for path, kept in zip(paths, fitted(paths, spec), strict=True):
        assert not kept.flags.writeable
        assert np.array_equal(kept, plan.fit(plan.read(path)))
    assert list(readable((*paths, tmp_path / "none.jpg"), spec)) == list(paths)


def test_images_at_the_size_of_another_input_are_forgotten(tmp_path: Path) -> None:
    (path,) = find_images(gallery(tmp_path, 1))
    spec, other = (Input(Geometry(32, side), Normalisation()) for side in (24, 16))
    kept, gone = (next(fitted([path], each)) for each in (spec, other))
    forget_others(spec)
    assert next(fitted([path], spec)) is kept
    assert next(fitted([path], other)) is not gone
