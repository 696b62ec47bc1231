"""What users get wrong: one line that says what to do, exit code 2, and nothing half-written."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from kedge_convert import pipeline
from kedge_convert.toolkit import require
from kedge_convert.worker import supervisor

Run = Callable[..., tuple[int, str, str]]
STAGES = (
    "load model",
    "head: ",
    "input: ",
    "read images",
    "only ",
    "float model",
    "export ",
    "skipped ",
)
LABELS = "one\ntwo\nthree\nfour\nfive\n"


def complaint(stderr: str) -> str:
    """Return the one line that is no progress; it must be the last."""
    *before, last = stderr.splitlines()
    assert [line for line in before if not line.startswith(STAGES)] == []
    assert last.startswith("kedge: ")
    return last


def no_classifier(keras: Any) -> Any:
    image = keras.Input((8, 8, 3))
    return keras.Model(image, keras.layers.Conv2D(2, 1)(image))


@pytest.fixture
def desk(tmp_path: Path, tiny_model: Path, pictures: Path) -> Path:
    """Return a folder full of the user's mistakes; `good.keras` and `pictures` are right."""
    (tmp_path / "good.keras").symlink_to(tiny_model)
    (tmp_path / "pictures").symlink_to(pictures)
    (tmp_path / "labels").write_text(LABELS)
    (tmp_path / "six").write_text(LABELS + "six\n")
    (tmp_path / "text.keras").write_text("I am no model")
    (tmp_path / "cut.keras").write_bytes(tiny_model.read_bytes()[:-100])
    (tmp_path / "model.onnx").write_bytes(b"\0")
    with ZipFile(tmp_path / "zip.keras", "w") as archive:
        archive.writestr("holiday.txt", "sun")
    (tmp_path / "folder.keras").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    for i in range(12):
        (tmp_path / "broken" / f"{i}.jpg").write_bytes(b"\xff\xd8\xff no picture")
    no_classifier(require("keras")).save(tmp_path / "map.keras")
    return tmp_path


TF = "--preprocess imagenet --normalisation tf"
GOOD = f"good.keras {TF} --labels labels"
CASES = {
    "too few images for a confidence": (
        f"{GOOD} --confidence-count 99",
        "--confidence-count 99: a confidence takes at least 100 images; 0 fits none",
    ),
    "a missing file": ("absent.keras", "absent.keras: no such file"),
    "a text file": ("text.keras", "text.keras: no Keras model in this file"),
    "a file cut short": ("cut.keras", "cut.keras: no Keras model in this file"),
    "a zip of something else": ("zip.keras", "zip.keras: no Keras model in this file"),
    "a folder": ("folder.keras", "folder.keras: no Keras model in this folder"),
    "another format": ("model.onnx", "model.onnx: no readable .onnx model"),
    "a card misspelt": ("mobilnetv2", "did you mean MobileNetV2"),
    "an unknown card": ("zebra", "no model called 'zebra': kedge models lists all"),
    "an unknown --card": ("good.keras --card mobilnetv2", "did you mean MobileNetV2"),
    "an unknown target": (f"{GOOD} --to tflite:int4", "--to: got 'tflite:int4', allowed are all"),
    "no classifier": (f"map.keras {TF} --labels labels", "map: no classifier: output"),
    "labels missing": (
        f"good.keras {TF}",
        "give --labels (FILE with the names of its 5 classes, one a line",
    ),
    "pipeline and normalisation missing": (
        "good.keras --labels labels",
        "pictures --out out --preprocess image_dataset --normalisation unit",
    ),
    "a label too many": (
        f"good.keras {TF} --labels six",
        "it has 5 classes, but six has 6 lines: a label file has one class a line",
    ),
    "another card's labels": ("good.keras --card MobileNetV2", "but there are 1000 labels"),
    "a missing label file": (f"good.keras {TF} --labels absent", "label file absent"),
    "no such pictures": (f"{GOOD} --calibrate absent", "absent: no such folder"),
    "an empty folder of pictures": (f"{GOOD} --calibrate empty", "empty: no images in it"),
    "broken pictures": (f"{GOOD} --calibrate broken", "0 usable images among 12"),
}


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the cases below a process each, and TensorFlow's start; the others have theirs."""
    monkeypatch.setattr(
        supervisor, "convert", lambda job, progress, _: list(pipeline.convert(job, progress))
    )


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("case", CASES)
def test_one_line_and_nothing_written(
    desk: Path, kedge: Run, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(desk)
    words, said = CASES[case]
    calibrate = [] if "--calibrate" in words else ["--calibrate", "pictures"]
    code, out, err = kedge("convert", *words.split(), *calibrate, "--out", "out")
    assert (code, out) == (2, "")
    assert said in complaint(err)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "out", ["labels", "labels/below", "/proc/kedge/out"], ids=["a file", "below a file", "no right"]
)
def test_an_out_that_cannot_be_written(
    desk: Path, kedge: Run, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(desk)
    code, _, err = kedge("convert", *GOOD.split(), "--calibrate", "pictures", "--out", out)
    assert code == 2
    assert complaint(err).startswith(f"kedge: --out: {out}: can't be written")
    assert (desk / "labels").read_text() == LABELS


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on a disk of 4 KiB, or skip where no disk can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a full disk needs the right to mount one")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(
    desk: Path, small_disk: Path, kedge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    words = f"{GOOD} --calibrate pictures --to tflite:float32"
    code, out, err = kedge("convert", *words.split(), "--out", small_disk)
    assert (code, out) == (2, "")
    assert "can't be written (no space left on device)" in complaint(err)
    assert list(small_disk.iterdir()) == []


LIMITED = (
    "import resource, sys; from kedge_runtime.cli import main; "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); main()"
)


def test_no_room_for_temporary_files(desk: Path) -> None:
    words = f"convert {GOOD} --calibrate pictures --out out --to onnx:int8 --effort fast"
    command = [sys.executable, "-c", LIMITED, *words.split()]
    ran = subprocess.run(command, cwd=desk, capture_output=True, text=True, check=False)
    assert ran.returncode == 2, ran.stderr
    assert "(file too large); set TMPDIR to one with room" in complaint(ran.stderr)
    assert not (desk / "out").exists()


def test_a_temporary_folder_that_is_too_small_is_told_beforehand(
    desk: Path, small_disk: Path, kedge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    words = f"{GOOD} --calibrate pictures --to tflite:float32 --out out"
    code, _, err = kedge("convert", *words.split())
    assert code == 2
    assert f"temporary folder {small_disk}: has 0.0 MB left" in complaint(err)
    assert not (desk / "out").exists()


def offline(cache: Path) -> dict[str, str]:
    """Return an environment whose network ends at a port where nobody listens."""
    nowhere = "http://127.0.0.1:9"
    proxies = {f"{kind}_proxy": nowhere for kind in ("http", "https")}
    kept = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    return {**kept, **proxies, "KERAS_HOME": str(cache)}


def test_without_network_the_way_on_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx", reason="the converter needs keras-kedge[convert]")
    cache = tmp_path / "keras"
    cache.mkdir()
    words = "convert mobilenetv2 --to tflite:float32 --out out"
    command = [sys.executable, "-m", "kedge_runtime.cli", *words.split()]
    ran = subprocess.run(
        command, cwd=tmp_path, env=offline(cache), capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("kedge: ")]
    file = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"
    for part in (file, str(cache / "models"), "--weights FILE", "kedge convert demo"):
        assert part in line
    assert ran.stderr.splitlines()[-1] == line
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_weights_from_a_file(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    from kedge_convert.load.request import SourceRequest
    from kedge_convert.source import load_source
    from kedge_runtime.errors import UsageError

    keras = require("keras")
    original = keras.applications.MobileNet(weights=None, alpha=0.25)
    path = tmp_path / "own.weights.h5"
    original.save_weights(path)
    # A name with a dot in it is a card's name all the same.
    source = load_source(SourceRequest("mobilenet-0.25", weights=str(path)))
    assert (source.card, source.name) == ("MobileNet-0.25", "mobilenet-0.25")
    assert source.parameters == original.count_params()
    assert (source.model.get_weights()[0] == original.get_weights()[0]).all()
    with pytest.raises(UsageError, match="doesn't fit MobileNetV2"):
        load_source(SourceRequest("MobileNetV2", weights=str(path)))
    with pytest.raises(UsageError, match="absent: no such file"):
        load_source(SourceRequest("MobileNetV2", weights="absent"))


def test_a_folder_called_like_a_card_does_not_hide_it(
    tmp_path: Path, kedge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mobilenetv2").mkdir()
    words = "mobilenetv2 --weights absent.h5 --to tflite:float32 --out mobilenetv2"
    code, _, err = kedge("convert", *words.split())
    assert code == 2
    assert "--weights: absent.h5: no such file" in complaint(err)


def test_a_wrong_card_is_refused_by_the_number_of_weights(shared: Path, kedge: Run) -> None:
    model = shared / "data/models/mobilenet_0.25_224.keras"
    code, out, err = kedge("convert", model, "--card", "ResNet50", "--to", "tflite:float32")
    assert (code, out) == (2, "")
    assert "give --card MobileNet-0.25" in complaint(err)
