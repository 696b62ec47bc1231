"""More validation images where the first leave a default limit open, and only there."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Run
from kedge_convert import float_model, parity, pipeline, sketching
from kedge_convert.convertible import Convertible
from kedge_convert.export.exported import Scheme
from kedge_convert.float_model import FloatModel, ask
from kedge_convert.images import ImageSplit, collect, tensors
from kedge_convert.job import Job
from kedge_convert.load.request import SourceRequest
from kedge_convert.parity import AskedFile
from kedge_convert.quantise.effort import FAST
from kedge_convert.sampling import Sampling
from kedge_convert.source import load_source
from kedge_convert.targets import Target
from kedge_convert.verdict import LIMITS, ParityLimits, UserLimits, is_open, judge, left_open
from kedge_convert.worker.progress import Event, Progress, StageStarted
from kedge_models.demo import pictograms
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.image.input_options import InputOptions

TF = "--preprocess imagenet --normalisation tf"

pytestmark = pytest.mark.slow

TARGET = Target("tflite", "int8")
CALIBRATION, CHECK, ALL = 20, 10, 70


@dataclass(frozen=True)
class Made:
    """A real int8 file of random weights, whose answers differ now and then, and its original."""

    path: Path
    original: FloatModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("many")
    pictograms.write(place, ALL, seed=11)  # on which answers differ
    return place


@pytest.fixture(scope="module")
def file(tiny_model: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reserve")
    labels = str(tiny_model.with_name("labels.txt"))
    request = SourceRequest(str(tiny_model), pixels=InputOptions("imagenet", "tf"), labels=labels)
    sampling = Sampling(CALIBRATION, CHECK)
    limits = UserLimits(agreement=0.0, relative_error=9.0)
    job = Job(request, (TARGET,), out, folder, sampling, effort=FAST, limits=limits)
    with Progress(silent=True) as progress:
        (outcome,) = pipeline.convert(job, progress)
    assert outcome.checked
    return outcome.checked.path


@pytest.fixture
def made(tiny_model: Path, folder: Path, file: Path) -> Made:
    labels = str(tiny_model.with_name("labels.txt"))
    source = load_source(
        SourceRequest(str(tiny_model), pixels=InputOptions("imagenet", "tf"), labels=labels)
    )
    photos = collect(folder, Sampling(CALIBRATION, CHECK))
    with Progress(silent=True) as progress:
        return Made(file, ask(source, photos, progress))


@pytest.fixture
def stages() -> list[str]:
    return []


@pytest.fixture
def progress(stages: list[str]) -> Iterator[Progress]:
    def show(event: Event) -> None:
        if isinstance(event, StageStarted):
            stages.append(event.stage)

    with Progress(show) as progress:
        yield progress


def agreement(made: Made, photos: tuple[Path, ...]) -> float:
    """Return the agreement by the public API and Keras alone."""
    source = made.original.source
    classifier = Classifier.open(made.path)
    ours = [int(classifier.outputs(photo).argmax()) for photo in photos]
    theirs = source.logits(tensors(photos, source.input)).argmax(axis=1)
    return float((np.array(ours) == theirs).mean())


def just_above(made: Made) -> ParityLimits:
    """Return a default limit that the first images leave open."""
    point = agreement(made, made.original.images.validation)
    assert point < 1, "a file that answers alike decides every limit"
    return ParityLimits(point + 0.01, 9.0, by_interval=True)


def check(made: Made, limits: ParityLimits, progress: Progress) -> parity.Parity:
    return float_model.check(AskedFile(made.path), TARGET, made.original, limits, progress)


def test_an_open_limit_takes_more_images(made: Made, progress: Progress, stages: list[str]) -> None:
    limits = just_above(made)
    measured = check(made, limits, progress)
    photos = made.original.reserve.images
    assert measured.images in (2 * CHECK, 4 * CHECK)
    assert measured.images == 4 * CHECK or not is_open(measured, limits)
    assert measured.agreement == agreement(made, photos.validation[: measured.images])
    assert photos.validation[:CHECK] == made.original.images.validation
    assert set(photos.validation).isdisjoint(photos.calibration)
    assert len(set(photos.validation)) == len(photos.validation) == measured.images
    assert stages.count("read more images") == {20: 1, 40: 2}[measured.images]


def test_the_next_target_finds_them_drawn_and_answered(
    made: Made, progress: Progress, stages: list[str]
) -> None:
    first = check(made, just_above(made), progress)
    stages.clear()
    assert check(made, just_above(made), progress) == first
    assert set(stages) == {"check tflite:int8"}


@pytest.mark.parametrize(
    "limits", [ParityLimits(0.0, 9.0, by_interval=True), ParityLimits(1.0, 9.0)]
)
def test_what_is_decided_is_measured_once(
    made: Made, progress: Progress, stages: list[str], limits: ParityLimits
) -> None:
    """A limit that holds; and the user's own, which is held on the point."""
    assert check(made, limits, progress).images == CHECK
    assert stages == ["check tflite:int8"]


@pytest.mark.parametrize(
    ("limits", "images"),
    [
        (ParityLimits(0.0, 9.0, by_interval=True), 4),
        (ParityLimits(0.0, 9.0, drop=1.0, by_interval=True), CHECK),
        (ParityLimits(0.0, 9.0), CHECK),
        (ParityLimits(0.0, 1e-9, by_interval=True), CHECK),
    ],
    ids=["holds", "a drop", "the user's own", "an error"],
)
def test_slow_kernels_are_looked_at_until_the_interval_holds(
    made: Made,
    progress: Progress,
    stages: list[str],
    monkeypatch: pytest.MonkeyPatch,
    limits: ParityLimits,
    images: int,
) -> None:
    monkeypatch.setitem(float_model.FIRST_LOOK, TARGET.precision, 4)
    measured = check(made, limits, progress)
    assert measured.images == images
    assert measured.agreement == agreement(made, made.original.images.validation[:images])
    assert set(stages) == {"check tflite:int8"}


def test_a_folder_without_more_decides_nothing(made: Made, progress: Progress) -> None:
    photos = replace(made.original.images, more=())
    reserve = replace(made.original.reserve, images=photos)
    bare = replace(made, original=replace(made.original, images=photos, reserve=reserve))
    measured, limits = check(bare, just_above(made), progress), just_above(made)
    assert measured.images == CHECK
    assert judge(measured, limits).passed
    (line,) = left_open(measured, limits)
    assert line.startswith(f"agreement {measured.agreement:.3f} on {CHECK} images, 95 % CI ")


def test_true_classes_are_known_of_the_added_ones(made: Made, progress: Progress) -> None:
    photos = made.original.images
    classes = dict.fromkeys((*photos.validation, *photos.more), 0)
    known = replace(made, original=replace(made.original, classes=classes))
    measured = check(known, just_above(made), progress)
    assert measured.images > CHECK
    assert measured.drop is not None


def test_the_command_decides_by_the_interval_of_all(
    kedge: Run, tiny_model: Path, folder: Path, tmp_path: Path
) -> None:
    """Against the table's and the JSON's own figures, whatever this machine's kernels answer."""
    words = f"{TF} --to {TARGET} --effort fast --json --max-logit-error 9"
    counts = f"--calibrate-count {CALIBRATION} --check-count {CHECK}"
    places = ["--labels", tiny_model.with_name("labels.txt"), "--calibrate", folder]
    command = ["convert", tiny_model, *words.split(), *counts.split(), *places, "--out", tmp_path]
    code, out, _ = kedge(*command)
    (artefact,) = json.loads(out)["artefacts"]
    measured: dict[str, Any] = artefact["parity"]
    limit, (_, high) = LIMITS["int8"].agreement, measured["agreement_interval"]
    assert artefact["passed"] == (code == 0) == (measured["agreement"] >= limit or high >= limit)
    left = measured["agreement"] < limit <= high
    assert left == any("too few images to decide on" in note for note in artefact["notes"])


def test_more_are_drawn_as_the_first_were(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "with others"
    shutil.copytree(folder, place)
    first = min(folder.iterdir())
    shutil.copy(first, place / "again.png")
    (place / "broken.png").write_bytes(b"no picture")
    photos = collect(place, Sampling(CALIBRATION, CHECK))
    assert len(photos.more) == ALL + 2 - CALIBRATION - CHECK - len(
        (*photos.broken, *photos.repeated)
    )
    grown: ImageSplit = photos.enlarged(10).enlarged(1000)
    used = (*grown.calibration, *grown.validation)
    assert (len(used), grown.more, grown.calibration) == (ALL, (), photos.calibration)
    assert len({path.read_bytes() for path in used}) == ALL
    assert grown == photos.enlarged(1000)


def test_the_sketch_takes_the_images_that_were_answered(
    made: Made, tmp_path: Path, progress: Progress, stages: list[str]
) -> None:
    """Calibration images are run only where the check and the confidence asked too few."""
    photos = made.original.images
    model = Convertible(made.original.source, photos, Scheme())
    for more in (CALIBRATION, CALIBRATION - 3):
        stages.clear()
        file = AskedFile(Path(shutil.copy(made.path, tmp_path)))
        file.ask((*photos.validation, *photos.more[:more]))
        assert sketching.add(file, TARGET, model, progress) == ()
        sketch = read_artefact(file.path).sketch
        assert sketch is not None
        assert sketch.images == CALIBRATION + CHECK
        assert len(file.rows) == CALIBRATION + CHECK
        assert bool(stages) == (more < CALIBRATION)
