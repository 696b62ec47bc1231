"""`--effort`: one registry for the command, `kedge.toml` and the candidates."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import Run
from kedge_convert import pipeline
from kedge_convert.job import Job, Outcome
from kedge_convert.load.request import SourceRequest
from kedge_convert.quantise.effort import DEFAULT, EFFORTS, FAST, Effort, read_effort
from kedge_convert.sampling import Sampling
from kedge_convert.targets import Target
from kedge_convert.worker.progress import Event, Progress, StageStarted
from kedge_runtime.artefact.file import read_artefact

TARGETS = (Target("tflite", "int8"), Target("onnx", "int8"))


def made(effort: Effort, out: Path) -> tuple[list[Outcome], list[str]]:
    """Convert the demo; return the outcomes and the names of the stages."""
    stages: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, StageStarted):
            stages.append(event.stage)

    job = Job(SourceRequest("demo"), TARGETS, out, sampling=Sampling(24, 12), effort=effort)
    with Progress(note) as progress:
        return list(pipeline.convert(job, progress)), stages


def test_fast_keeps_the_stock_weights_and_observes_them_once(tmp_path: Path) -> None:
    outcomes, stages = made(FAST, tmp_path)
    for outcome in outcomes:
        assert outcome.verdict.passed
        assert outcome.checked
        assert read_artefact(outcome.checked.path).contract.provenance.method == "stock"
    assert not [stage for stage in stages if "prepare" in stage or "choose" in stage]
    # An image ticks where it is used: the second format takes the ranges of the first.
    assert [stage for stage in stages if "int8" in stage and "export" in stage] == [
        f"export {target}" for target in TARGETS
    ]


def test_the_methods_for_ranges_are_those_of_the_effort(tmp_path: Path) -> None:
    narrow = replace(DEFAULT, range_methods=("mse",))
    outcomes, stages = made(narrow, tmp_path)
    assert "prepare weights" in stages
    recipes = [outcome.checked.recipe for outcome in outcomes if outcome.checked]
    assert {recipe.ranges for recipe in recipes if recipe.method == "prepared"} == {"mse"}


def test_the_command_knows_every_effort_and_names_them(kedge: Run) -> None:
    code, _, said = kedge("convert", "demo", "--effort", "most")
    assert code == 2
    assert all(name in said for name in EFFORTS)


@pytest.mark.parametrize("value", ["most", True, 1, None])
def test_an_unknown_effort_names_the_known_ones(value: object) -> None:
    with pytest.raises(ValueError, match=", ".join(EFFORTS)):
        read_effort(value)


def test_an_effort_is_read_by_its_name() -> None:
    assert [read_effort(name).name for name in json.loads(json.dumps(list(EFFORTS)))] == [*EFFORTS]
