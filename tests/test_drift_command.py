"""`kedge drift` on a device: verdicts, exit codes, the report, and what is refused."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import drift_references
from conftest import TESTS, Run
from kedge_runtime.artefact.file import read_artefact, seal
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import sigmoid
from kedge_runtime.drift import gates
from kedge_runtime.drift.measure import opened

COUNT = 120


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, artefacts: Path) -> Path:
    """Return a folder with photos, and references that are the artefact itself, near it, and far
    from it; `truth.csv` holds what the artefact answers.
    """
    folder = tmp_path_factory.mktemp("desk")
    (folder / "photos").mkdir()
    drift_references.write_photos(folder / "photos", COUNT)
    for name, noise in (("same", 0.0), ("near", 0.02), ("far", 5.0)):
        path = folder / f"{name}.npz"
        drift_references.write_for(artefacts / "tiny.tflite", folder / "photos", path, noise)
    return folder


@pytest.fixture
def drift(kedge: Run, desk: Path, artefacts: Path) -> Run:
    """Return `kedge drift tiny.tflite` on the photos, against a reference by name."""

    def run(against: object, *words: object) -> tuple[int, str, str]:
        path = desk / f"{against}.npz" if (desk / f"{against}.npz").exists() else against
        place = ["--against", path, *([] if "--images" in words else ["--images", desk / "photos"])]
        return kedge("drift", artefacts / "tiny.tflite", *place, *words)

    return run


@pytest.mark.parametrize(
    ("against", "words", "code", "verdict"),
    [
        ("same", [], 0, "PASS"),
        ("far", [], 1, "FAIL"),
        ("near", ["--min-agreement", ".9"], 0, "PASS"),
        ("same", ["--min-agreement", ".97"], 3, "INCONCLUSIVE"),
    ],
)
def test_verdicts_and_exit_codes(
    drift: Run, against: str, words: list[str], code: int, verdict: str
) -> None:
    found, said, error = drift(against, *words)
    assert (found, verdict in said) == (code, True), said + error
    assert ("can't decide --min-agreement 97%" in said) == (code == 3)


def _words(text: str) -> str:
    return " ".join(text.split())


def test_the_sentence_says_how_many_more_images_would_decide_and_what_these_hold(
    drift: Run,
) -> None:
    _, said, error = drift("same", "--min-agreement", ".97")
    assert "can't decide" not in error
    why = "can't decide --min-agreement 97%: the whole 95 % interval must lie on one side"
    assert f"These {COUNT} images {why}" in _words(said)
    assert re.search(r"About [1-9][\d ]* more images would decide", _words(said))
    assert said.rstrip().endswith(f"These {COUNT} images can hold --min-agreement 96.8%.")
    judged = "agreement 100.0 % (96.9 to 100.0), at least 97.0 %"
    assert [(said + error).count(words) for words in (judged, "INCONCLUSIVE")] == [1, 1]
    # What is proposed passes.
    assert drift("same", "--min-agreement", "96.8%")[0] == 0
    assert drift("same", "--min-agreement", "96.9%")[0] == 3


def test_json_for_machines_leaves_the_sentence_on_stderr(drift: Run) -> None:
    _, said, error = drift("same", "--min-agreement", ".97", "--json")
    assert f"kedge: tiny.tflite: These {COUNT} images can't decide --min-agreement 97%" in error
    gate = json.loads(said)["drifts"][0]["gates"][0]
    assert gate["images_needed"] > COUNT


def test_the_option_of_other_commands_gets_the_one_of_this(drift: Run) -> None:
    code, _, error = drift("same", "--labels", "l.txt")
    assert (code, "No such option '--labels'. Did you mean '--truth'?" in error) == (2, True), error


def test_a_gate_that_no_number_of_images_decides(
    drift: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "images_needed", lambda *_: None)
    code, said, _ = drift("same", "--min-agreement", "1")
    assert code == 3
    assert "No number of images would decide" in _words(said)


def test_labels_for_fewer_than_a_thousand_images_leave_the_verdict_to_the_agreement(
    drift: Run, desk: Path
) -> None:
    names = [path.relative_to(desk / "photos") for path in (desk / "photos").rglob("*.*")]
    table = desk / "labels.csv"
    table.write_text("\n".join(f"{name},0" for name in names))
    code, said, _ = drift("same", "--truth", table)
    assert code == 0
    assert "so kedge judges --min-agreement 95%. --max-drop 1pp needs 1 000" in _words(said)
    assert f"These {COUNT} images can hold --min-agreement 96.8% or --max-drop 3.2pp." in said
    assert "up to 3.1 % of all images do (exact 95 % bound)" in _words(said)
    assert "Both are right on the same images." in said
    assert "top-5" not in said  # of four classes
    assert max(map(len, said.splitlines()[1:])) <= 80
    assert drift("same", "--truth", table, "--max-drop", "3.2pp")[0] == 0
    assert drift("same", "--truth", table, "--max-drop", "3.1pp")[0] == 3


def test_a_corrupt_image_is_counted_and_named(drift: Run) -> None:
    code, out, error = drift("same", "--json")
    assert code == 0
    (found,) = json.loads(out)["drifts"]
    assert (found["images"], len(found["failed"])) == (COUNT, 1)
    assert found["failed"][0]["image"] == drift_references.BROKEN
    assert f"kedge: {drift_references.BROKEN}: unreadable when" in error
    assert "kedge: skipped 1 unreadable image" in error


def test_names_that_are_no_text_are_compared_and_reported(
    kedge: Run, artefacts: Path, tmp_path: Path
) -> None:
    photos, artefact = tmp_path / "photos", artefacts / "tiny.tflite"
    photos.mkdir()
    drift_references.write_photos(photos, 20)
    (photos / "even/000.png").rename(photos / os.fsdecode(b"even/\xe9.png"))
    reference = drift_references.write_for(artefact, photos, tmp_path / "reference.npz", 5.0)
    words = ["--images", photos, "--against", reference, "--out", tmp_path / "report.json"]
    code, _, error = kedge("drift", artefact, *words)
    assert code == 1, error
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [each["images"] for each in report["drifts"]] == [20]


def test_images_of_other_kinds_are_told(drift: Run, desk: Path) -> None:
    other = desk / "photos" / "phone.HEIC"
    other.write_bytes(b"")
    try:
        code, _, error = drift("same", "--min-agreement", ".9")
    finally:
        other.unlink()
    assert code == 0
    assert f"kedge: {desk / 'photos'}: 1 file of another kind left out (.HEIC 1)" in error


def test_the_report_is_whole_and_is_what_json_prints(drift: Run, tmp_path: Path) -> None:
    place = tmp_path / "report.json"
    code, out, _ = drift("near", "--json", "--out", place)
    report = json.loads(out)
    assert json.loads(place.read_text()) == report
    assert (report["schema"], report["command"], report["verdict"]) == (1, "drift", "INCONCLUSIVE")
    assert code == 3
    assert report["reference"]["images"] == COUNT
    (found,) = report["drifts"]
    assert found["top1"] is None
    assert found["agreement"]["low"] <= found["agreement"]["value"] <= found["agreement"]["high"]
    assert sum(b["images"] for b in found["flips"]["by_margin"]) == COUNT
    assert found["flips"]["count"] == round(COUNT * (1 - found["agreement"]["value"]))
    assert found["artefact"]["bytes"] == Path(found["artefact"]["path"]).stat().st_size
    assert list(tmp_path.iterdir()) == [place]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, desk: Path, artefacts: Path) -> Path:
    """Return a folder with the artefact sealed as one of independent classes, and a reference."""
    folder, source = tmp_path_factory.mktemp("several"), artefacts / "tiny.tflite"
    artefact = read_artefact(source)
    output = replace(artefact.contract.output, activation="sigmoid", thresholds=(0.6,))
    contract = replace(artefact.contract, output=output)
    model = (TESTS / "models" / "tiny.tflite").read_bytes()
    path = folder / "several.tflite"
    path.write_bytes(seal("tflite", model, contract, artefact.golden))
    drift_references.write_for(path, desk / "photos", folder / "near.npz", 0.1)
    return folder


def test_independent_classes_drift_by_their_sets(kedge: Run, several: Path, desk: Path) -> None:
    words = ["drift", several / "several.tflite", "--images", desk / "photos"]
    words += ["--against", several / "near.npz"]
    code, out, error = kedge(*words, "--min-agreement", ".1", "--json")
    assert code == 0, error
    (found,) = json.loads(out)["drifts"]
    classifier = Classifier.open(several / "several.tflite")
    with np.load(several / "near.npz") as known:
        names, outputs = json.loads(known["names"].tobytes()), known["outputs"]
    theirs = [classifier.probabilities(desk / "photos" / name) for name in names]
    changed = ((sigmoid(outputs) >= 0.6) != (np.stack(theirs) >= 0.6)).any(axis=1)
    assert 0 < changed.sum() < COUNT
    assert (found["agreement_by"], found["flips"]["count"]) == ("labels", changed.sum())
    assert found["agreement"]["value"] == pytest.approx(1 - changed.mean())
    first = found["flips"]["listed"][0]["reference"]
    assert first["best"] is None
    assert first["labels"]["count"] == len(first["labels"]["listed"])
    assert (found["per_class"], found["agreement_top5"], found["top1"]) == (None, None, None)
    for option, said in (("--max-drop", "1pp"), ("--truth", "folders")):
        code, _, error = kedge(*words, option, said)
        assert (code, len(error.splitlines())) == (2, 1)
        assert f"kedge: {option}" in error


def test_labels_make_it_a_drop(drift: Run, desk: Path, tmp_path: Path) -> None:
    rows = [
        f"{path.relative_to(desk / 'photos')},0" for path in sorted((desk / "photos").rglob("*.*"))
    ]
    table = tmp_path / "truth.csv"
    table.write_text("\n".join(rows))
    code, out, _ = drift("same", "--truth", table, "--json", "--max-drop", "5pp")
    (found,) = json.loads(out)["drifts"]
    assert code == 0
    assert found["top1"]["drop"]["value"] == 0
    assert found["top1"]["pairs"]["lost"] == found["top1"]["pairs"]["gained"] == 0
    assert [gate["name"] for gate in found["gates"]] == ["max_drop"]
    assert found["calibration"]["shift"] == pytest.approx(0, abs=1e-6)
    assert found["per_class"]["by"] == "truth"


def test_two_artefacts_stand_one_below_the_other(
    kedge: Run, desk: Path, artefacts: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second.tflite"
    second.write_bytes((artefacts / "tiny.tflite").read_bytes())
    place = ["--images", desk / "photos", "--against", desk / "same.npz"]
    code, out, _ = kedge("drift", artefacts / "tiny.tflite", second, *place)
    assert code == 0
    assert out.count("PASS") == 2
    assert max(map(len, out.replace(str(tmp_path), "").splitlines())) <= 100


def test_a_rerun_goes_on_where_it_stopped(
    drift: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, journal = tmp_path / "report.json", tmp_path / "report.json.0.journal"
    _, expected, _ = drift("near", "--json")
    with monkeypatch.context() as patched:
        patched.setattr("kedge_runtime.commands.drift.finish", lambda request: None)
        drift("near", "--out", place)
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 4  # the head, and a shard of 32 each
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:50])
    asked: list[str] = []
    monkeypatch.setattr(
        "kedge_runtime.drift.measure.read_bytes",
        lambda path: asked.append(path.name) or path.read_bytes(),  # type: ignore[func-returns-value]
    )
    _, out, _ = drift("near", "--json", "--out", place)
    assert len(asked) == COUNT + 1 - 64 - 1  # the broken one isn't read again either
    again, before = json.loads(out)["drifts"][0], json.loads(expected)["drifts"][0]
    again.pop("latency")
    before.pop("latency")
    assert again == before
    assert not journal.exists()


def test_a_rerun_against_a_model_goes_on_too(
    drift: Run, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def record(_: object, __: object, path: Path) -> None:
        if not path.exists():
            asked.append(path)
            path.write_bytes((desk / "same.npz").read_bytes())

    command, place = "kedge_runtime.commands.drift", tmp_path / "report.json"
    monkeypatch.setattr(f"{command}.converter", lambda: SimpleNamespace(record=record))
    with monkeypatch.context() as patched:
        patched.setattr(f"{command}.finish", lambda request: None)
        drift("demo", "--out", place)
    monkeypatch.setattr("kedge_runtime.drift.measure.read_bytes", None)  # nothing is left to do
    assert drift("demo", "--out", place)[0] == 0
    assert len(asked) == 1
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize(
    ("against", "words", "message"),
    [
        ("none.npz", [], "none.npz: no such file"),
        ("same", ["--max-drop", "1pp"], "--max-drop: no ground truth found: give --truth"),
        ("same", ["--max-drop", "1"], "1 would be 100 points: give 1pp or .01"),
        ("same", ["--record", "new.npz"], "--record: needs the float model"),
        ("same", ["--attribute", "5"], "--attribute: needs the float model"),
        ("same", ["--truth", "folders"], "--truth folders: no folder name matches a class"),
        ("same", ["--truth", "none.csv"], "none.csv: can't be read"),
        ("same", ["--out", "report.txt"], "--out: got report.txt, its name must end in .json"),
        ("same", ["--images", "nowhere"], "--images: nowhere: no such folder"),
    ],
)
def test_mistakes(drift: Run, against: str, words: list[str], message: str) -> None:
    code, out, error = drift(against, *words)
    assert (code, out) == (2, "")
    assert message in error


def test_a_reference_of_other_images_is_refused(
    kedge: Run, desk: Path, artefacts: Path, tmp_path: Path
) -> None:
    (tmp_path / "even").mkdir()
    other = (desk / "photos" / "odd" / "001.png").read_bytes()
    (tmp_path / "even" / "000.png").write_bytes(other)
    words = ["--images", tmp_path, "--against", desk / "same.npz"]
    code, _, error = kedge("drift", artefacts / "tiny.tflite", *words)
    assert code == 2
    assert "recorded from other images: even/000.png has changed since" in error


def test_a_reference_may_be_named_in_capitals(drift: Run, desk: Path, tmp_path: Path) -> None:
    place = tmp_path / "SAME.NPZ"
    place.write_bytes((desk / "same.npz").read_bytes())
    assert drift(place)[0] == 0


def test_a_reference_of_another_artefacts_original(kedge: Run, desk: Path, artefacts: Path) -> None:
    words = ["--images", desk / "photos", "--against", desk / "same.npz"]
    code, _, error = kedge("drift", artefacts / "tiny.onnx", *words)
    assert code == 2
    assert "is no reference of" in error


@pytest.fixture(autouse=True)
def _closed() -> None:
    opened.cache_clear()
