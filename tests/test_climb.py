"""A budget climbs: an int8 target that misses it becomes wider, up to float16."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import Run
from kedge_convert import float_model, parity, pipeline
from kedge_convert.job import Job, Outcome
from kedge_convert.load.request import SourceRequest
from kedge_convert.parity import Parity
from kedge_convert.quantise.effort import DEFAULT, FAST
from kedge_convert.quantise.search import Search
from kedge_convert.sampling import Sampling
from kedge_convert.targets import Target
from kedge_convert.toolkit import ConversionError
from kedge_convert.verdict import UserLimits, after_misses, budget_miss, judge, limits_for
from kedge_convert.worker.progress import Progress
from kedge_runtime.artefact.contract import Output
from kedge_runtime.image.input_options import InputOptions

pytestmark = pytest.mark.slow

ASKED = 0.9
Convert = Callable[[bool], Outcome]


def measured(agreeing: int, images: int) -> Parity:
    """Return the parity of an artefact that answers otherwise on the last images."""
    reference = np.eye(4, dtype=np.float32)[np.arange(images) % 4] * 3
    candidate = np.roll(reference, 1, axis=1)
    candidate[:agreeing] = reference[:agreeing]
    return parity.compare(reference, candidate, Output("logits"))


def test_the_first_try_is_held_to_the_limit_itself() -> None:
    limits = limits_for("int8", UserLimits(agreement=0.97, drop=0.01))
    assert after_misses(limits, measured(97, 100), 0) == limits


@pytest.mark.parametrize("tries", [2, 3, 4, 6])
def test_later_tries_are_held_to_what_the_best_of_as_many_gains_by_luck(tries: int) -> None:
    """The oracle draws: the mean of the best of so many noisy figures of one true agreement."""
    images, share = 400, 0.9
    drawn = np.random.default_rng(0).binomial(images, share, (20_000, tries)) / images
    limits = limits_for("mixed", UserLimits(agreement=share))
    asked = after_misses(limits, measured(380, images), tries - 1)
    assert asked.agreement == pytest.approx(drawn.max(axis=1).mean(), abs=0.002)


def test_a_drop_is_held_to_less_as_well() -> None:
    limits = limits_for("mixed", UserLimits(agreement=0.0, drop=0.05))
    drops = [after_misses(limits, measured(96, 100), misses).drop or 0.0 for misses in range(4)]
    assert drops == sorted(drops, reverse=True)
    assert drops[0] == pytest.approx(0.05)
    same = after_misses(limits, measured(100, 100), 3)
    assert same.drop == pytest.approx(0.05), "a file that never differs has no luck"


def test_a_default_is_no_budget() -> None:
    limits = limits_for("int8")
    assert after_misses(limits, measured(50, 100), 3) == limits
    assert budget_miss(measured(50, 100), limits) == ""
    assert not judge(measured(50, 100), limits).passed


def test_a_miss_is_told_in_figures() -> None:
    limits = limits_for("int8", UserLimits(agreement=0.97, drop=0.01))
    assert budget_miss(measured(96, 100), limits) == "agreement 0.960 on 100 images, below 0.97"
    assert budget_miss(measured(98, 100), limits) == "accuracy drop 2 points, above 1"
    assert budget_miss(measured(99, 100), limits) == ""


@pytest.fixture
def convert(
    tiny_model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Convert:
    """Return a conversion whose forecast always says that the budget holds."""
    labels = str(tiny_model.with_name("labels.txt"))
    request = SourceRequest(str(tiny_model), pixels=InputOptions("imagenet", "tf"), labels=labels)
    limits = UserLimits(agreement=ASKED, relative_error=9.0)
    monkeypatch.setattr(Search, "holds", lambda search, target, candidate: True)

    def run(prepared: bool) -> Outcome:
        target, out = Target("tflite", "int8"), tmp_path / "out"
        sampling = Sampling(25, 15)
        job = Job(
            request,
            (target,),
            out,
            pictures,
            sampling,
            effort=DEFAULT if prepared else FAST,
            limits=limits,
        )
        with Progress(silent=True) as progress:
            (outcome,) = pipeline.convert(job, progress)
        assert outcome.checked
        assert list(out.iterdir()) == [outcome.checked.path], "a file that missed is left behind"
        return outcome

    return run


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return agreements, empty at first, that stand for those of the first files' checks."""
    fixed: list[float] = []
    check = float_model.check

    def checked(*arguments: object) -> Parity:
        found: Parity = check(*arguments)  # type: ignore[arg-type]
        return replace(found, agreement=fixed.pop(0) if fixed else 1.0)

    monkeypatch.setattr(float_model, "check", checked)
    return fixed


@pytest.mark.parametrize(
    ("agreements", "misses", "names"),
    [
        ([ASKED], 0, {"tiny.int8.tflite"}),
        ([0.8], 1, {"tiny.mixed.tflite"}),
        # That would do for a first file, but a second one may have it by luck.
        ([0.8, ASKED], 2, {"tiny.mixed.tflite", "tiny.float16.tflite"}),
    ],
)
def test_a_miss_is_followed_by_a_wider_file(
    convert: Convert, figures: list[float], agreements: list[float], misses: int, names: set[str]
) -> None:
    figures += agreements
    outcome = convert(True)
    assert outcome.checked
    assert outcome.verdict.passed
    assert outcome.checked.path.name in names
    told = [note for note in outcome.notes if note.endswith("; a wider file is tried")]
    assert len(told) == misses
    if told:
        assert told[0].startswith("int8: agreement 0.800 on 15 images, below 0.9; ")
    # Each rung but int8 itself says its price.
    assert sum("of plain int8's size" in note for note in outcome.notes) == misses


def test_where_even_float16_misses_it_is_rejected(convert: Convert, figures: list[float]) -> None:
    figures += [0.5] * 9
    outcome = convert(True)
    assert outcome.checked
    assert not outcome.verdict.passed
    assert outcome.checked.path.name == "tiny.float16.tflite.rejected"


def test_without_prepared_layers_float16_is_next(convert: Convert, figures: list[float]) -> None:
    figures += [0.8]
    outcome = convert(False)
    assert outcome.checked
    assert outcome.checked.path.name == "tiny.float16.tflite"
    assert outcome.notes[0].startswith("int8: agreement 0.800 on 15 images, below 0.9; a wider")
    assert outcome.notes[1].startswith("float16: ")


def test_a_file_that_cant_be_sealed_is_followed_by_a_wider_one(
    convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = pipeline._sealed

    def fails_of_int8(*arguments: object) -> object:
        if "int8" in str(arguments[0]):
            raise ConversionError("no such operator")
        return sealed(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "_sealed", fails_of_int8)
    outcome = convert(False)
    assert outcome.checked
    assert outcome.checked.path.name == "tiny.float16.tflite"
    assert outcome.notes[0] == "int8: no such operator; a wider file is tried"


def test_a_real_model_holds_what_int8_misses(shared: Path, tmp_path: Path, kedge: Run) -> None:
    """MobileNet 0.25 ended with exit code 1 and two rejected files."""
    model = shared / "data" / "models" / "mobilenet_0.25_224.keras"
    words = "--labels imagenet --preprocess imagenet --normalisation tf --to tflite:int8 --json"
    words += " --calibrate-count 36"  # fewer, so that int8 holds less
    files = ["--calibrate", shared / "data" / "images", "--out", tmp_path / "out"]
    code, said, err = kedge("convert", model, *words.split(), *files, "--min-agreement", ".97")
    assert code == 0, err
    (artefact,) = json.loads(said)["artefacts"]
    assert artefact["passed"]
    assert artefact["parity"]["agreement"] >= 0.97
    assert any("of plain int8's size" in note for note in artefact["notes"])
