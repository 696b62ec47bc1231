"""`kedge calibrate` and `kedge classify --coverage`, on tiny models with real engines."""

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conftest import Run
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Contract, Output
from kedge_runtime.artefact.file import read_artefact, seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.provenance import calibration_mark
from kedge_runtime.artefact.reseal import resealed, write_resealed
from kedge_runtime.artefact.signing import PrivateKey, signature_of, signed
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import Rule
from kedge_runtime.errors import UsageError
from kedge_runtime.field.sketching import sketch_images
from kedge_runtime.files import sha256_of_file

COLOURS = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0), "dark": (0, 0, 0)}


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 300 images in folders of their colours; two of five are in a wrong one."""
    folder = tmp_path_factory.mktemp("labelled")
    random, names = np.random.default_rng(0), list(COLOURS)
    for i in range(300):
        colour = COLOURS[names[i % 4]]
        pixels = np.clip(random.normal(colour, 60, (20, 20, 3)), 0, 255).astype(np.uint8)
        place = folder / names[(i + (i % 5 < 2)) % 4]
        place.mkdir(exist_ok=True)
        cv2.imwrite(str(place / f"{i}.png"), pixels)
    return folder


def test_a_file_is_calibrated_and_verified(kedge: Run, sealed: Path, labelled: Path) -> None:
    before = read_artefact(sealed)
    code, out, err = kedge("calibrate", sealed, "--images", labelled, "--json")
    assert code == 0, err
    report, after = json.loads(out), read_artefact(sealed)
    assert report["digest"] == after.digest != before.digest
    assert report["temperature"] == after.contract.output.temperature != 1
    confidence = after.contract.confidence
    assert confidence
    assert (confidence.fitted, confidence.measured) == (150, 150)
    assert report["confidence"]["before"][0] > report["confidence"]["after"][0]
    assert [cost["coverage"] for cost in report["coverage"]] == [0.8, 0.9, 0.95]
    assert not report["signature_removed"]
    code, out, _ = kedge("verify", sealed)
    assert code == 0, out


def test_the_table_says_what_was_measured(kedge: Run, sealed: Path, labelled: Path) -> None:
    code, out, err = kedge("calibrate", sealed, "--images", labelled)
    assert code == 0, err
    assert "fitted to 150 images, measured on 150 others" in out
    assert "calibration error" in out
    assert "in the long run" in out


def test_the_best_class_of_no_image_changes(kedge: Run, sealed: Path, labelled: Path) -> None:
    images = sorted(labelled.rglob("*.png"))
    with Classifier.open(sealed) as classifier:
        before = [result.best.index for result in classifier(images)]
    assert kedge("calibrate", sealed, "--images", labelled)[0] == 0
    with Classifier.open(sealed) as classifier:
        assert [result.best.index for result in classifier(images)] == before


def test_a_second_calibration_gives_the_same_bytes(
    kedge: Run, sealed: Path, labelled: Path
) -> None:
    assert kedge("calibrate", sealed, "--images", labelled)[0] == 0
    first = sealed.read_bytes()
    assert kedge("calibrate", sealed, "--images", labelled)[0] == 0
    assert sealed.read_bytes() == first


def test_the_model_and_other_members_stay(sealed: Path, contracts: dict[str, Contract]) -> None:
    content = read_content(sealed)
    classifier = Classifier.open(sealed)
    same = b"".join(resealed(content, classifier.contract))
    again = resealed(replace(content, data=same), classifier.contract)
    assert b"".join(again) == same
    sealed.write_bytes(same)
    assert read_artefact(sealed).golden.images == classifier.artefact.golden.images


def test_a_signature_is_gone_and_said_to_be(
    kedge: Run, sealed: Path, labelled: Path, signing_key: PrivateKey
) -> None:
    sealed.write_bytes(signed(read_content(sealed), signing_key, 7))
    code, _, err = kedge("calibrate", sealed, "--images", labelled)
    assert code == 0
    assert "its signature is gone; sign it again with `kedge sign`" in err
    assert signature_of(sealed.read_bytes()) is None


def test_images_of_the_conversion_are_left_out(
    kedge: Run, sealed: Path, labelled: Path, tmp_path: Path
) -> None:
    marks = [
        calibration_mark(bytes.fromhex(sha256_of_file(path)))
        for path in sorted(labelled.rglob("*.png"))
    ]
    classifier = Classifier.open(sealed)
    provenance = replace(
        classifier.contract.provenance,
        calibration_images=tuple(sorted(marks[:20])),
        validation_images=tuple(sorted(marks[20:30])),
    )
    contract = replace(classifier.contract, provenance=provenance)
    write_resealed(sealed, resealed(read_content(sealed), contract))
    copies = shutil.copytree(labelled, tmp_path / "copies")
    (copies / "red" / "again.png").write_bytes((copies / "red" / "4.png").read_bytes())
    (copies / "red" / "broken.png").write_bytes(b"\x89PNG")
    code, out, err = kedge("calibrate", sealed, "--images", copies, "--json")
    assert code == 0, err
    left_out = json.loads(out)["left_out"]
    assert left_out["calibration images"] == 20
    assert left_out["validation images"] == 10
    assert left_out["unreadable images"] == 1
    assert left_out.get("repeated images", 0) + left_out["calibration images"] >= 20
    confidence = read_artefact(sealed).contract.confidence
    assert confidence
    assert not set(confidence.images) & set(marks[:30])
    assert "left out 20 images: calibration images" in err


MISTAKES = {
    "no truth": (["--truth", "none"], "no ground truth"),
    "too few": (["--count", "50"], "at least 100 are needed"),
    "another format": (["--out", "x.txt"], "its name must end in ."),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_changes_no_file(kedge: Run, sealed: Path, labelled: Path, name: str) -> None:
    words, reason = MISTAKES[name]
    before = sealed.read_bytes()
    code, _, err = kedge("calibrate", sealed, "--images", labelled, *words)
    assert code == 2
    assert reason in err
    assert sealed.read_bytes() == before


def test_classify_gives_sets_of_labels(
    kedge: Run, sealed: Path, labelled: Path, tmp_path: Path
) -> None:
    image = labelled / "red" / "4.png"
    code, _, err = kedge("classify", sealed, image, "--coverage", "90%")
    assert code == 2
    assert "kedge calibrate FILE --images LABELLED" in err
    assert kedge("calibrate", sealed, "--images", labelled)[0] == 0
    code, out, err = kedge("classify", sealed, labelled, "--coverage", "90%", "--csv", "-")
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    right = [row["right"] == "true" for row in rows]
    assert 0.8 < np.mean(right) <= 1, "with the floors that these images set"
    assert {int(row["set_size"]) for row in rows} <= {0, 1, 2, 3, 4}
    code, out, err = kedge("classify", sealed, labelled, "--coverage", "90%")
    assert "its set holds red" in out
    assert re.search(r"^coverage \S+ % \(\d+ of \d+ images\), 95 % CI", out, re.MULTILINE)
    assert "accuracy" not in out + err
    code, out, _ = kedge("classify", sealed, labelled, "--coverage", "97%", "--top", "1")
    assert code == 0
    assert "unknown (" in out
    code, out, _ = kedge("classify", sealed, image, "--coverage", ".97", "--top", "2", "--json")
    assert json.loads(out)["results"][0]["set_size"] >= 1


def test_an_ensemble_has_no_coverage(kedge: Run, sealed: Path, labelled: Path) -> None:
    assert kedge("calibrate", sealed, "--images", labelled)[0] == 0
    words = ("classify", "--ensemble", sealed, sealed, labelled, "--coverage", "90%")
    code, _, err = kedge(*words)
    assert code == 2
    assert "no labelled images have calibrated this predictor" in err


def test_python_gives_the_same_sets(kedge: Run, sealed: Path, labelled: Path) -> None:
    image = labelled / "red" / "4.png"
    with Classifier.open(sealed) as classifier, pytest.raises(UsageError, match="calibrate"):
        classifier(image, rule=Rule(coverage=0.9))
    assert kedge("calibrate", sealed, "--images", labelled)[0] == 0
    with Classifier.open(sealed) as classifier:
        assert classifier(image, rule=Rule(coverage=0.9)).set_size is not None


def test_independent_classes_take_a_table(
    kedge: Run,
    models: dict[str, bytes],
    contracts: dict[str, Contract],
    golden: Golden,
    labelled: Path,
    tmp_path: Path,
) -> None:
    path = tmp_path / "multi.onnx"
    output = Output("logits", activation="sigmoid")
    path.write_bytes(
        seal("onnx", models["onnx"], replace(contracts["onnx"], output=output), golden)
    )
    code, _, err = kedge("calibrate", path, "--images", labelled)
    assert code == 2
    assert "a row for each label" in err
    rows = [f"{image.parent.name}/{image.name},{image.parent.name}" for image in _images(labelled)]
    rows += [f"{image.parent.name}/{image.name},dark" for image in _images(labelled)[::3]]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,label", *rows[1:], f"{rows[0].partition(',')[0]},", ""]))
    code, out, err = kedge("calibrate", path, "--images", labelled, "--truth", table, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert len(report["thresholds"]) == 4
    assert report["confidence"]["f1_after"][0] >= report["confidence"]["f1_before"][0] - 0.05
    table.write_text("file,label\n" + rows[0].replace(",", ",purple "))
    code, _, err = kedge("calibrate", path, "--images", labelled, "--truth", table)
    assert code == 2
    assert "is not a class" in err


def _images(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def test_drift_measures_coverage_and_compares_alike(
    kedge: Run, sealed: Path, labelled: Path, tmp_path: Path
) -> None:
    """The reference is read at the artefact's temperature: a file has no drift from itself."""
    twin, page = Path(shutil.copy(sealed, tmp_path / f"twin{sealed.suffix}")), tmp_path / "p.html"
    assert kedge("calibrate", sealed, "--images", labelled)[0] == 0
    words = ("drift", sealed, "--images", labelled, "--against", twin)
    code, out, err = kedge(*words, "--json", "--report", page)
    assert code == 0, err
    (drift,) = json.loads(out)["drifts"]
    assert drift["distances"]["kl"] == pytest.approx(0, abs=1e-6)
    assert drift["entropy"]["shift"]["value"] == 0
    assert drift["calibration"]["shift"] == 0
    confidence = drift["confidence"]
    assert confidence["temperature"] == read_artefact(sealed).contract.output.temperature
    assert confidence["uncalibrated"]["value"] > confidence["error"]["value"]
    assert confidence["error"]["value"] == pytest.approx(drift["calibration"]["artefact"]["ece"])
    assert confidence["fitted_images"] == 300
    rows = {each["asked"]: each for each in confidence["coverage"]}
    assert rows[0.9]["low"] < rows[0.9]["held"]["value"] <= 1
    assert "also fitted its confidence, so it may look too good" in err
    assert "uncalibrated" in page.read_text()
    code, out, _ = kedge(*words)
    assert "without temperature" in out
    # The KL is of the probabilities at that temperature: no other file's compares.
    (row,) = [line for line in out.splitlines() if line.strip().startswith("KL in nats")]
    assert "at temperature" in row
    assert "good int8" not in row
    assert "% coverage" in out


def test_a_reference_recorded_before_the_calibration_still_serves(
    kedge: Run, sealed: Path, labelled: Path, tmp_path: Path
) -> None:
    record = tmp_path / "reference.npz"
    twin = Path(shutil.copy(sealed, tmp_path / f"twin{sealed.suffix}"))
    words = ("drift", "--images", labelled, "--against")
    assert kedge(*words, twin, sealed, "--record", record)[0] == 0
    assert kedge("calibrate", sealed, "--images", labelled)[0] == 0
    code, out, err = kedge(*words, record, sealed, "--json")
    assert code == 0, err
    assert json.loads(out)["drifts"][0]["distances"]["kl"] == pytest.approx(0, abs=1e-6)


def _sketch(sealed: Path, labelled: Path) -> None:
    """Give a file a sketch of a folder's images, as a conversion does."""
    content, classifier = read_content(sealed), Classifier.open(sealed)
    plan = classifier.preprocessor
    fitted = [plan.fit(plan.read(image)) for image in sorted(labelled.rglob("*.png"))]
    sketch = sketch_images(classifier, fitted, None)
    write_resealed(sealed, resealed(content, classifier.contract, sketch))


def test_the_new_sketch_takes_the_answers_that_were_given(
    kedge: Run, sealed: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _sketch(sealed, labelled)
    runs = list[int]()
    classifier = Classifier.open(sealed)
    engine = type(classifier.engine)
    run = engine.run

    def counted(self: Any, tensor: Any) -> Any:
        runs.append(1)
        return run(self, tensor)

    monkeypatch.setattr(engine, "run", counted)
    code, _, said = kedge("calibrate", sealed, "--images", labelled)
    assert code == 0, said
    images = len(list(labelled.rglob("*.png")))
    sketch = read_artefact(sealed).sketch
    assert sketch is not None
    assert len(runs) == sketch.images <= images


def test_the_sketch_is_made_anew(kedge: Run, sealed: Path, labelled: Path) -> None:
    """A sketch of another temperature would be refused by `kedge drift --field`."""
    _sketch(sealed, labelled)
    before = read_artefact(sealed)
    assert before.sketch and before.sketch.temperature == before.contract.output.temperature
    code, _, said = kedge("calibrate", sealed, "--images", labelled)
    assert code == 0, said
    after = read_artefact(sealed)
    assert after.contract.output.temperature != before.contract.output.temperature
    assert after.sketch and after.sketch.temperature == after.contract.output.temperature
    assert kedge("drift", sealed, "--field", labelled)[0] in (0, 1)
