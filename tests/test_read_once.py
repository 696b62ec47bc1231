"""What was digested is what runs, whatever happens to the file meanwhile."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import MODELS, Run
from kedge_runtime import Classifier
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.file import read_artefact, seal
from kedge_runtime.drift.measure import Task
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.errors import ArtefactError
from kedge_runtime.output import quiet

FORMATS = ("tflite", "onnx")
OPENINGS, TRIES = 30, 5000


def _other_weights(sealed: bytes) -> bytes:
    """Return a file that still loads, with other weights and so another digest."""
    other = bytearray(sealed)
    middle = len(MODELS.joinpath("tiny.tflite").read_bytes()) // 2
    for at in range(middle, middle + 400, 4):
        other[at] ^= 1
    return bytes(other)


@contextmanager
def _swapped(path: Path, contents: tuple[bytes, bytes]) -> Iterator[None]:
    """Replace a file by a rename, to and fro, as fast as it goes."""
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            for i, content in enumerate(contents):
                beside = path.with_name(f"beside-{i}")
                beside.write_bytes(content)
                beside.replace(path)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_swapped_while_it_is_opened_never_runs_unsealed_weights(
    form: str, artefacts: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"swapped.{form}"
    sealed = (artefacts / f"tiny.{form}").read_bytes()
    path.write_bytes(sealed)
    expected = Classifier.open(path, threads=1).outputs(_image())
    opened = 0
    with _swapped(path, (_other_weights(sealed), sealed)), quiet():
        for _ in range(TRIES):
            if opened == OPENINGS:
                break
            try:
                classifier = Classifier.open(path, threads=1)
            except ArtefactError:
                continue
            opened += 1
            np.testing.assert_array_equal(classifier.outputs(_image()), expected)
    assert opened == OPENINGS


def _file(folder: Path) -> Path:
    path = folder / "image.png"
    cv2.imwrite(str(path), _image())
    return path


def _image() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


@pytest.mark.parametrize("form", FORMATS)
def test_a_copy_over_a_file_in_use_changes_no_answer(
    form: str, artefacts: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"used.{form}"
    shutil.copy(artefacts / f"tiny.{form}", path)
    with quiet():
        classifier = Classifier.open(path, threads=1)
        expected = classifier.outputs(_image())
        with path.open("r+b") as file:  # as `cp` does: the same inode
            file.write(os.urandom(path.stat().st_size))
        np.testing.assert_array_equal(classifier.outputs(_image()), expected)
        os.truncate(path, 0)  # a mapped file would end the process by SIGBUS
        np.testing.assert_array_equal(classifier.outputs(_image()), expected)


def test_a_comparison_refuses_a_file_that_was_replaced(artefacts: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.tflite"
    shutil.copy(artefacts / "tiny.tflite", path)
    task = Task(path, "sha256:" + 64 * "0", path, tmp_path, EngineOptions(threads=1))
    with quiet(), pytest.raises(ArtefactError, match=r"changed during the measurement"):
        task.open()


@pytest.fixture
def external(artefacts: Path, tmp_path: Path) -> Path:
    """Return a sealed ONNX file whose weights lie beside it."""
    onnx = pytest.importorskip("onnx")
    sealed = artefacts / "tiny.onnx"
    model = onnx.load(sealed)
    del model.metadata_props[:]
    bare = tmp_path / "bare.onnx"
    onnx.save(model, bare, save_as_external_data=True, location="weights.bin", size_threshold=0)
    artefact = read_artefact(sealed)
    path = tmp_path / "external.onnx"
    path.write_bytes(seal("onnx", bare.read_bytes(), artefact.contract, artefact.golden))
    return path


@pytest.mark.parametrize("engine", ["onnxruntime", "opencv"])
def test_weights_in_another_file_are_refused(
    engine: str, external: Path, kedge: Run, tmp_path: Path
) -> None:
    options = EngineOptions(engine=engine)
    with pytest.raises(ArtefactError, match=r"external.onnx: keeps its weights in another file"):
        open_engine(read_content(external), options)
    code, _, err = kedge("classify", external, "--engine", engine, _file(tmp_path))
    assert code == 2
    assert "keeps its weights in another file" in err


def test_a_model_of_more_bytes_than_any_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.tflite"
    path.touch()
    os.truncate(path, (2 << 30) + 1)
    with pytest.raises(ArtefactError, match=r"2147483649 bytes, allowed are 2147483648"):
        read_content(path)
