"""A folder, a video and a stream held against a sketch, with a real model and its engine."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import Run
from kedge_runtime.arrays import Pixels
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.file import artefact_of, read_artefact
from kedge_runtime.artefact.reseal import resealed, write_resealed
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.commands.field_watch import field_observers
from kedge_runtime.errors import ArtefactError, UsageError
from kedge_runtime.field.monitor import Monitor, MonitorOptions
from kedge_runtime.field.sketching import sketch_images
from kedge_runtime.field.thinning import Pace, Thinning
from kedge_runtime.streams.answers import FrameClassifier, StreamOptions, StreamTally
from kedge_runtime.streams.events import Event
from kedge_runtime.streams.sources import Frame
from kedge_runtime.watch.loop import Message, Watch


def scene(rng: np.random.Generator) -> Pixels:
    """Draw an image of one main colour, red, green or blue, lighter at the top, with a texture."""
    colour = np.full(3, 50.0)
    colour[rng.integers(0, 3)] = rng.uniform(140, 210)
    ramp = np.linspace(25, -25, 40)[:, None, None]
    noise = rng.normal(0, rng.uniform(4, 14), (40, 40, 3))
    return np.clip(colour + ramp + noise, 0, 255).astype(np.uint8)


def write(folder: Path, images: Iterable[Pixels]) -> list[Path]:
    folder.mkdir()
    paths = []
    for number, image in enumerate(images):
        paths.append(folder / f"{number:04}.png")
        cv2.imwrite(str(paths[-1]), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return paths


@pytest.fixture
def sketched(artefacts: Path, tmp_path: Path) -> Path:
    """Return a tiny model with the sketch of 150 images."""
    content = read_content(artefacts / "tiny.tflite")
    rng = np.random.default_rng(0)
    paths = write(tmp_path / "calibration", (scene(rng) for _ in range(150)))
    with Classifier.open(content.path) as classifier:
        plan = classifier.preprocessor
        images = (plan.fit(plan.read(path)) for path in paths)
        sketch = sketch_images(classifier, images, [1] * 150)
    path = tmp_path / "sketched.tflite"
    write_resealed(path, resealed(content, artefact_of(content).contract, sketch))
    return path


def dark(image: Pixels) -> Pixels:
    return (image * 0.55).astype(np.uint8)


def test_a_folder_like_calibration_changes_nothing(
    sketched: Path, tmp_path: Path, kedge: Run
) -> None:
    rng = np.random.default_rng(1)
    write(tmp_path / "field", (scene(rng) for _ in range(200)))
    code, out, _ = kedge("drift", sketched, "--field", tmp_path / "field")
    assert code == 0
    assert "nothing changed in 200 images" in out
    assert re.search(
        r"accuracy by estimate, last 200 images.* \(\d+\.\d points (lost|gained)\)", out
    )


def test_a_folder_of_darker_images_raises_an_alarm(
    sketched: Path, tmp_path: Path, kedge: Run
) -> None:
    rng = np.random.default_rng(1)
    write(tmp_path / "field", (dark(scene(rng)) for _ in range(80)))
    (tmp_path / "field" / "0005.png").write_bytes(b"no image")
    code, out, err = kedge("drift", sketched, "--field", tmp_path / "field")
    assert code == 1
    assert "alarm: images are darker than" in out
    assert "look at 00" in out
    assert "0005.png" in err


def test_names_of_images_have_no_effect_on_a_terminal(
    sketched: Path, tmp_path: Path, kedge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    rng = np.random.default_rng(1)
    for path in write(tmp_path / "field", (dark(scene(rng)) for _ in range(80))):
        path.rename(path.with_name(f"{path.stem}\n::error::\x1b[31m.png"))
    code, out, _ = kedge("drift", sketched, "--field", tmp_path / "field")
    assert code == 1
    assert "\x1b" not in out
    assert r"\n::error::\x1b[31m.png" in out
    starts = {line.partition(":")[0][:9] for line in out.splitlines()}
    assert starts <= {"alarm", "mix", "  look at", "accuracy "}


def test_images_that_all_fail_are_no_proof(sketched: Path, tmp_path: Path, kedge: Run) -> None:
    (tmp_path / "field").mkdir()
    (tmp_path / "field" / "a.png").write_bytes(b"no image")
    code, out, err = kedge("drift", sketched, "--field", tmp_path / "field")
    assert (code, out) == (2, "")
    assert "no readable image in it" in err.splitlines()[-1]


def test_a_file_without_a_sketch_is_refused_at_once(
    artefacts: Path, tmp_path: Path, kedge: Run
) -> None:
    (tmp_path / "field").mkdir()
    code, _, err = kedge("drift", artefacts / "tiny.tflite", "--field", tmp_path / "field")
    (line,) = err.splitlines()
    assert code == 2
    assert "has no sketch of its calibration images" in line


def test_json_has_the_findings(sketched: Path, tmp_path: Path, kedge: Run) -> None:
    rng = np.random.default_rng(1)
    write(tmp_path / "field", (dark(scene(rng)) for _ in range(80)))
    code, out, _ = kedge("drift", sketched, "--field", tmp_path / "field", "--json")
    report = json.loads(out)
    assert code == 1
    assert report["alarm"] is True
    assert report["images"] == 80
    darker = next(each for each in report["findings"] if each["name"] == "luminance")
    assert darker["kind"] == "alarm"
    assert darker["shift"] < -1
    assert set(darker["look"]) <= {path.name for path in (tmp_path / "field").iterdir()}


def test_a_video_is_held_against_it(sketched: Path, tmp_path: Path, kedge: Run) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "field.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (40, 40))
    for _ in range(60):
        image = cv2.cvtColor(dark(scene(rng)), cv2.COLOR_RGB2BGR)
        for _ in range(10):
            video.write(image)
    video.release()
    code, out, _ = kedge("drift", sketched, "--field", path)
    assert code == 1
    assert "images are" in out
    assert " s (noticed at " in out


MISTAKES = {
    "two files": (["--field", "."], "give one", 2),
    "a float model": (["--field", ".", "--against", "demo"], "--against: compares with", 1),
    "no folder": (["--field", "nowhere"], "no such folder", 1),
    "neither": ([], "--images", 1),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(sketched: Path, kedge: Run, case: str) -> None:
    options, text, files = MISTAKES[case]
    code, _, err = kedge("drift", *[sketched] * files, *options)
    assert code == 2
    assert text in err.splitlines()[-1]


def test_a_file_without_a_sketch_says_what_to_do(
    artefacts: Path, tmp_path: Path, kedge: Run
) -> None:
    write(tmp_path / "field", [scene(np.random.default_rng(0))])
    code, _, err = kedge("drift", artefacts / "tiny.onnx", "--field", tmp_path / "field")
    assert code == 2
    assert "has no sketch of its calibration images: convert it again with" in err


EACH = Pace(least=0, most=0)  # every frame counts


class Clock:
    """A clock that the test sets: a minute a frame."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def observed(
    monitor: Monitor, classifier: Classifier, clock: Clock, images: Iterable[Pixels]
) -> list[Event]:
    events: list[Event] = []
    for image in images:
        clock.now += 60
        events += monitor.observe(image, classifier(image))
    return events


def test_a_monitor_reports_a_fault_as_an_event_and_survives_a_restart(
    sketched: Path, tmp_path: Path
) -> None:
    rng, clock = np.random.default_rng(2), Clock()
    options = MonitorOptions(tmp_path / "field.state", EACH, clock)
    with Classifier.open(sketched) as classifier:
        monitor = Monitor(classifier.artefact, options)
        assert observed(monitor, classifier, clock, (scene(rng) for _ in range(150))) == []
        few = observed(monitor, classifier, clock, (dark(scene(rng)) for _ in range(3)))
        assert few == []
        monitor.close()
        again = Monitor(classifier.artefact, options)
        assert again.evidence.frames == 153
        events = observed(again, classifier, clock, (dark(scene(rng)) for _ in range(60)))
    alarm = next(event for event in events if "darker" in event.text)
    assert alarm.kind == "field-alarm"
    assert "frames to look at: " in alarm.text
    # A minute a frame: the change is dated to the right quarter of an hour.
    began = 1_700_000_000.0 + 60 * 151
    assert abs(alarm.figures["since"] - began) <= 15 * 60
    assert alarm.figures["shift"] < -1


def test_a_damaged_state_is_reported_and_begun_anew(sketched: Path, tmp_path: Path) -> None:
    path, clock = tmp_path / "field.state", Clock()
    path.write_bytes(b"nothing")
    image = scene(np.random.default_rng(0))
    with Classifier.open(sketched) as classifier:
        monitor = Monitor(classifier.artefact, MonitorOptions(path, clock=clock))
        events = observed(monitor, classifier, clock, [image, image])
    assert [event.kind for event in events] == ["field-state"]
    assert "it is damaged; the tests begin anew" in events[0].text


def test_a_full_disk_is_reported_once_and_ends_nothing(sketched: Path, tmp_path: Path) -> None:
    clock = Clock()
    rng = np.random.default_rng(0)
    options = MonitorOptions(tmp_path / "missing" / "field.state", EACH, clock)
    with Classifier.open(sketched) as classifier:
        monitor = Monitor(classifier.artefact, options)
        events = observed(monitor, classifier, clock, (scene(rng) for _ in range(30)))
    assert [event.kind for event in events] == ["field-state"]
    assert monitor.evidence.frames == 30


def test_a_file_without_a_sketch_has_no_monitor(artefacts: Path) -> None:
    with (
        Classifier.open(artefacts / "tiny.tflite") as classifier,
        pytest.raises(ArtefactError, match="no sketch"),
    ):
        Monitor(classifier.artefact)


def test_frames_count_when_the_scene_changes_and_not_too_often() -> None:
    rng, counts = np.random.default_rng(0), Thinning(Pace(least=5, most=60))
    still, other = scene(rng), 255 - scene(rng)
    assert counts(still, 0)
    assert not counts(other, 4)  # too early
    assert counts(other, 5)
    assert not any(counts(other, 5 + second) for second in range(1, 60))
    assert counts(other, 65)  # nothing moved for a minute
    assert counts(still, 71)
    assert counts(other, 10)  # the clock was set back


def test_a_watched_camera_sends_the_alarm_to_the_sinks(sketched: Path, tmp_path: Path) -> None:
    class Kept(list[Message]):
        def put(self, message: Message) -> None:
            self.append(message)

        def close(self) -> None: ...

    rng, kept = np.random.default_rng(2), Kept()
    with Classifier.open(sketched) as model:
        (monitor,) = field_observers(model, tmp_path / "state", live=True)
        assert isinstance(monitor, Monitor)
        monitor.thinning = Thinning(EACH)
        classifier = FrameClassifier(model, StreamOptions(), StreamTally())
        images = (Frame(at, float(at), dark(scene(rng))) for at in range(60))
        Watch("camera", classifier, [monitor], [kept]).run(images)
    events = [message for message in kept if isinstance(message, Event)]
    assert len(kept) - len(events) == 60
    assert any("darker" in event.text for event in events)
    # The state is written at the end, under the file's own name.
    (state,) = (tmp_path / "state").iterdir()
    assert state.name == f"field-{model.artefact.digest[7:19]}.state"


def test_only_a_camera_and_a_file_with_a_sketch_are_watched(
    sketched: Path, artefacts: Path, tmp_path: Path
) -> None:
    with Classifier.open(sketched) as model, Classifier.open(artefacts / "tiny.onnx") as bare:
        assert field_observers(model, tmp_path, live=False) == ()
        assert field_observers(bare, tmp_path, live=True) == ()
        with pytest.raises(UsageError, match="--state: "):
            field_observers(model, sketched / "no folder", live=True)


def test_a_sketch_of_another_temperature_or_of_other_outputs_is_refused(sketched: Path) -> None:
    artefact = read_artefact(sketched)
    assert artefact.sketch is not None
    output = replace(artefact.contract.output, temperature=1.5)
    warmer = replace(artefact, contract=replace(artefact.contract, output=output))
    with pytest.raises(ArtefactError, match=r"made at temperature 1, its contract has 1\.5"):
        Monitor(warmer)
    larger = replace(artefact.sketch, classes=np.zeros(5, np.uint32))
    other = replace(artefact, packed_sketch=larger.to_bytes())
    with pytest.raises(ArtefactError, match="its sketch has 5 outputs, its contract 4"):
        Monitor(other)
