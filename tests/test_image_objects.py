"""Images as programs hold them: open files, bytes of each kind and Pillow images."""

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kedge_runtime import Classifier, Ensemble, ImageError, KedgeError, preprocess
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.image.decode import ImageLimits, read_image

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("ai_edge_litert")


def _pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (40, 60, 3), np.uint8)


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def classifier(artefacts: Path) -> Classifier:
    return Classifier.open(artefacts / "tiny.tflite", threads=1)


def _written(folder: Path) -> Path:
    path = folder / "image.png"
    path.write_bytes(_png(Image.fromarray(_pixels())))
    return path


def _saved() -> io.BytesIO:
    """Return a buffer as Pillow leaves it: at its end."""
    buffer = io.BytesIO()
    Image.fromarray(_pixels()).save(buffer, "PNG")
    return buffer


class _Unseekable(io.RawIOBase):
    """A stream as from a network: it gives a few bytes at a time, once."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self.content.read(min(size, 1000))


FORMS: dict[str, Callable[[Path], Any]] = {
    "str": str,
    "path": Path,
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "file object": lambda path: io.BufferedReader(io.BytesIO(path.read_bytes())),
    "BytesIO": lambda _: _saved(),
    "stream": lambda path: _Unseekable(path.read_bytes()),
    "Pillow": lambda _: Image.fromarray(_pixels()),
    "Pillow, lazy": lambda path: Image.open(path),
    "array": lambda _: _pixels(),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_image_may_come_in_every_form(classifier: Classifier, tmp_path: Path, form: str) -> None:
    path, expected = _written(tmp_path), classifier(_pixels())
    assert classifier(FORMS[form](path)) == expected
    assert classifier([FORMS[form](path)]) == classifier((path,)) == [expected]
    assert list(classifier.each([FORMS[form](path)])) == [expected]
    assert Ensemble([classifier, classifier])(FORMS[form](path)).best == expected.best
    mean = Ensemble([classifier, classifier]).probabilities(FORMS[form](path))
    np.testing.assert_array_equal(mean, classifier.probabilities(FORMS[form](path)))
    tensor = preprocess(classifier.contract, FORMS[form](path))
    np.testing.assert_array_equal(tensor, preprocess(classifier.contract, path))


def test_a_file_is_read_again_and_stays_open(classifier: Classifier, tmp_path: Path) -> None:
    with _written(tmp_path).open("rb") as file:
        assert classifier(file) == classifier(file)
        assert not file.closed


def test_a_member_of_a_zip_is_a_file(classifier: Classifier) -> None:
    content = _saved().getvalue()
    with zipfile.ZipFile(io.BytesIO(), "w") as folder:
        folder.writestr("a.png", content)
        with folder.open("a.png") as file:
            assert classifier(file) == classifier(content)


# 16 bits, a palette, transparency: what a PNG file can hold, and what is read from it.
PNG_MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]


@pytest.mark.parametrize("mode", PNG_MODES)
def test_a_pillow_image_is_read_as_its_file_is(mode: str) -> None:
    colours = Image.fromarray(_pixels())
    if mode == "I;16":
        image = Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27)
    else:
        image = colours.convert("RGBA" if mode == "LA" else mode).convert(mode)
    assert image.mode == mode
    found = read_image(image)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, read_image(_png(image)))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "RGBa", "RGBX", "PA"])
def test_other_modes_are_converted_by_pillow(mode: str) -> None:
    via = {"PA": "P", "RGBa": "RGBA"}.get(mode, "RGB")
    image = Image.fromarray(_pixels()).convert(via).convert(mode)
    np.testing.assert_array_equal(read_image(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", ["exif", "ignore"])
@pytest.mark.parametrize("number", [*range(1, 9), 0, 9])
def test_exif_turns_a_pillow_image_as_it_turns_a_file(number: int, orientation: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = number
    buffer = io.BytesIO()
    Image.fromarray(_pixels()).save(buffer, "JPEG", quality=95, exif=exif)
    expected = read_image(buffer, orientation)
    found = read_image(Image.open(buffer), orientation)
    np.testing.assert_array_equal(found, expected)
    sides = (60, 40) if orientation == "exif" and 5 <= number <= 8 else (40, 60)
    assert found.shape[:2] == sides


def _closed() -> Any:
    image = Image.open(_saved())
    image.close()
    return image


class _Coroutine:
    """An upload of a web framework whose `read` must be awaited."""

    def read(self, size: int) -> list[int]:
        return [size]


class _PathOfBytes:
    def __fspath__(self) -> bytes:
        return b"image.png"


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "None": (lambda: None, "got None, allowed are a path"),
    "number": (lambda: 5, "got an int, allowed"),
    "set": (lambda: {1}, "got a set, allowed"),
    "nested": (lambda: [["a.png"]], "image 1 of 1: got a list"),
    "text file": (lambda: io.StringIO("text"), "gave a str, expected bytes; open it with 'rb'"),
    "closed file": (lambda: _closed_file(), "can't be read: I/O operation on closed file"),
    "class": (lambda: io.BytesIO, "can't be read"),
    "awaitable": (_Coroutine, "gave a list, expected bytes"),
    "no image": (lambda: io.BytesIO(b"no image"), "the image: "),
    "empty": (io.BytesIO, "the file is empty"),
    "path of bytes": (_PathOfBytes, "os.fsdecode"),
    "closed image": (_closed, "the Pillow image: Pillow can't read it"),
    "cut image": (lambda: Image.open(io.BytesIO(_saved().getvalue()[:3000])), "can't read it"),
    "no pixels": (lambda: Image.new("RGB", (0, 4)), "expected uint8"),
    "mode F": (lambda: Image.new("F", (4, 4)), "mode F has no stated range"),
    "mode I": (lambda: Image.new("I", (4, 4)), "mode I has no stated range"),
    "mode La": (lambda: Image.new("La", (4, 4)), "can't read it: conversion"),
    "batch": (lambda: np.zeros((2, 4, 4, 3), np.uint8), r"for a batch, give list\(array\)"),
    "objects": (lambda: np.array([None]), "got an array of object"),
    "scalar": (lambda: np.uint8(3), "got an uint8"),
    "generator": (lambda: iter(["a.png"]), "give a list, or call each"),
}


def _closed_file() -> io.BytesIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_one_line(classifier: Classifier, name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(KedgeError, match=message) as refusal:
        classifier(make())
    assert "\n" not in str(refusal.value)
    if name not in ("nested", "generator"):
        with pytest.raises(ImageError):
            preprocess(classifier.contract, make())


def test_a_named_file_is_named(classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("not an image")
    with path.open() as file, pytest.raises(ImageError, match=r"letter\.txt: its read\(\) gave"):
        classifier(file)  # type: ignore[call-overload]


def test_the_limits_of_files_hold() -> None:
    image = Image.new("RGB", (20, 10))
    with pytest.raises(ImageError, match="20x10 pixels, allowed are 199 in all"):
        read_image(image, limits=ImageLimits(pixels=199))
    assert read_image(image, limits=ImageLimits(pixels=200)).shape == (10, 20, 3)
    with pytest.raises(ImageError, match="101 bytes, allowed are 100"):
        read_image(_Endless(), limits=ImageLimits(bytes=100))


class _Endless:
    def read(self, size: int) -> bytes:
        return bytes(min(size, 7))


def test_pillow_is_not_imported(artefacts: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom kedge_runtime import Classifier\n"
        "classifier = Classifier.open(sys.argv[1])\n"
        "with open(sys.argv[2], 'rb') as file:\n"
        "    classifier(file).to_dict()\n"
        "print([name for name in ('PIL', 'html', 'IPython') if name in sys.modules])"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    files = [str(artefacts / "tiny.tflite"), str(_written(tmp_path))]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=30)
    | st.binary(max_size=30).map(io.BytesIO)
    | st.text(max_size=9).map(io.StringIO)
    | st.text(max_size=9).map(lambda text: Path(text))
    | st.sampled_from(["1", "L", "P", "RGB", "LAB", "CMYK", "F", "I", "I;16B"]).map(
        lambda mode: Image.new(mode, (3, 2))
    )
    | st.tuples(st.sampled_from(["u1", "f4", "O", "?", "U3"]), st.lists(st.integers(0, 3))).map(
        lambda kind: np.zeros(kind[1][:5], kind[0])
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=3,
)
QUIET = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _only_kedge_errors(call: Callable[..., Any], *values: Any, **options: Any) -> None:
    try:
        answer = call(*values, **options)
        list(answer) if hasattr(answer, "__next__") else repr(answer)
    except KedgeError:
        pass


@given(image=ANYTHING, top=ANYTHING, rule=ANYTHING, colour=ANYTHING | st.sampled_from(["bgr"]))
@QUIET
def test_only_errors_of_kedge_leave_a_call(
    classifier: Classifier, image: Any, top: Any, rule: Any, colour: Any
) -> None:
    ensemble = Ensemble([classifier])
    for one in (classifier, ensemble):
        for options in ({}, {"top": top}, {"rule": rule}, {"colour": colour}):
            _only_kedge_errors(one, image, **options)
            _only_kedge_errors(one.each, image, **options)
        _only_kedge_errors(one.probabilities, image, colour)
    _only_kedge_errors(classifier.features, image)
    _only_kedge_errors(preprocess, classifier.contract, image)
    _only_kedge_errors(preprocess, image, image)
    _only_kedge_errors(Contract.from_json, image)
