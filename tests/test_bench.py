"""`kedge bench`: every step is clocked, none is missed, and cases stand apart."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.checks import bench
from kedge_runtime.checks.bench import (
    BenchCase,
    Plan,
    Timing,
    cases,
    measure,
    measure_apart,
    notes,
    steps,
)
from kedge_runtime.checks.hardware import Machine
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import ACTIVATIONS
from kedge_runtime.commands.bench import A_BLOCK, STEPS, WIDTH, table
from kedge_runtime.engines.choice import cores
from kedge_runtime.errors import UsageError
from kedge_runtime.image import decode

pytest.importorskip("ai_edge_litert")

STAGES = ["read", "decode", "resize", "table", "set", "invoke", "get", "head"]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Return three noisy JPEGs, twice at most as large as what the model takes."""
    rng = np.random.default_rng(4)
    paths = [tmp_path / f"{side}.jpg" for side in (20, 24, 30)]
    for path in paths:
        pixels = rng.integers(0, 256, (int(path.stem), 28, 3), np.uint8)
        path.write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    return paths


@pytest.fixture
def sealed(
    tmp_path: Path,
    contracts: dict[str, Contract],
    models: dict[str, bytes],
    golden: Golden,
    pictures: list[Path],
) -> Path:
    """Return a folder of tiny artefacts whose golden pictures are pictures."""
    images = tuple(path.read_bytes() for path in pictures[:2])
    for form, model in models.items():
        content = seal(form, model, contracts[form], replace(golden, images=images))
        (tmp_path / f"tiny.{form}").write_bytes(content)
    return tmp_path


class Clock:
    """A clock that only the work under test moves: each piece by a number of its own."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def slow(self, function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def slowed(*arguments: Any, **named: Any) -> Any:
            self.now += seconds
            return function(*arguments, **named)

        return slowed


# What a classification consists of, by the step that it belongs to: independent of bench.py.
WORK: dict[str, tuple[Any, str]] = {
    "read": (decode, "open_plain"),
    "decode": (cv2, "imdecode"),
    "resize": (cv2, "resize"),
    "table": (cv2, "LUT"),
}


@pytest.mark.parametrize("name", ["tiny.tflite", "tiny.onnx"])
def test_the_steps_are_all_there_is_and_add_up_to_the_whole(
    sealed: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    clock = Clock()
    seconds = {stage: float(10**i) for i, stage in enumerate(STAGES)}
    engine = type(BenchCase(sealed / name).open().engine)
    places = WORK | {stage: (engine, stage) for stage in ("set", "invoke", "get")}
    for stage, (home, attribute) in places.items():
        slowed = clock.slow(getattr(home, attribute), seconds[stage])
        monkeypatch.setattr(home, attribute, slowed)
    monkeypatch.setitem(ACTIVATIONS, "softmax", clock.slow(ACTIVATIONS["softmax"], seconds["head"]))
    monkeypatch.setattr(bench, "perf_counter", clock)
    timing = measure(BenchCase(sealed / name), Plan(tuple(pictures), rounds=4, warm_up=2))
    assert list(timing.stages) == STAGES
    for stage, found in timing.stages.items():
        np.testing.assert_array_equal(found, [seconds[stage]] * 4)
    np.testing.assert_array_equal(timing.total, [sum(seconds.values())] * 4)
    assert timing.accounted == 1.0


@pytest.mark.parametrize("name", ["tiny.tflite", "tiny.onnx"])
def test_step_by_step_gives_the_classifiers_answer(
    sealed: Path, pictures: list[Path], name: str
) -> None:
    classifier = Classifier.open(sealed / name)
    for picture in pictures:
        value: Any = picture
        for step in steps(classifier).values():
            value = step(value)
        assert value == classifier(picture)


def test_features_are_timed_too(
    sealed: Path, contracts: dict[str, Contract], models: dict[str, bytes], pictures: list[Path]
) -> None:
    contract = contracts["tflite"]
    spatial = replace(contract, output=replace(contract.output, kind="features"), labels=())
    path = sealed / "features.tflite"
    path.write_bytes(seal("tflite", models["tflite"], spatial, Golden.none()))
    timing = measure(BenchCase(path), Plan(tuple(pictures), rounds=2, warm_up=0))
    assert list(timing.stages) == STAGES


def test_warm_up_counts_for_nothing_and_pictures_go_round(
    sealed: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []

    def noted(call: Any, stages: dict[str, Any], picture: Path, turn: int) -> list[float]:
        assert turn == len(seen)
        seen.append(picture)
        return [float(len(seen))] * (1 + len(STAGES))

    monkeypatch.setattr(bench, "_round", noted)
    timing = measure(BenchCase(sealed / "tiny.tflite"), Plan(tuple(pictures), rounds=5, warm_up=2))
    assert seen == [*pictures, *pictures, pictures[0]]
    np.testing.assert_array_equal(timing.total, [3, 4, 5, 6, 7])


def test_each_case_has_a_process_and_a_peak_of_its_own(sealed: Path, pictures: list[Path]) -> None:
    ballast = np.ones(40 << 20, np.float64)
    plan = Plan(tuple(pictures), rounds=2, warm_up=0)
    timing = measure_apart(BenchCase(sealed / "tiny.tflite", threads=1), plan)
    assert 10 << 20 < timing.peak < ballast.nbytes
    assert (timing.engine, timing.threads, timing.precision) == ("litert", 1, "float32")


WAYS = {
    "the format's own": ("tflite", (), (None,), [(None, None)]),
    "threads": ("tflite", (), (1, 2, 4), [(None, 1), (None, 2), (None, 4)]),
    "those that can": (
        "onnx",
        ("litert", "onnxruntime", "opencv"),
        (1,),
        [("onnxruntime", 1), ("opencv", 1)],
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_cases_are_every_engine_with_every_number_of_threads(artefacts: Path, way: str) -> None:
    form, engines, threads, expected = WAYS[way]
    base = BenchCase(artefacts / f"tiny.{form}", delegate="x")
    found = list(cases(base, engines, threads))
    assert [(case.engine, case.threads) for case in found] == expected
    assert {(case.artefact, case.delegate) for case in found} == {(base.artefact, "x")}


def test_an_engine_for_none_of_the_artefacts_is_named(artefacts: Path) -> None:
    with pytest.raises(UsageError, match=r"none of them runs .*tiny\.tflite; allowed are litert"):
        list(cases(BenchCase(artefacts / "tiny.tflite"), ("onnxruntime", "opencv"), (1,)))


def _timing(totals: Any, threads: int | None = 1, name: str = "m.int8.tflite") -> Timing:
    total = np.array(totals, np.float64)
    stages = {stage: total / len(STAGES) for stage in STAGES}
    case = BenchCase(Path(name), "litert", threads)
    return Timing(case, "litert", "ai_edge_litert", "int8", stages, total, 50_000_000)


GOVERNOR = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
HEAT = "sys/class/thermal/thermal_zone0/temp"
DOUBTS = {
    "a steady machine": ({GOVERNOR: "performance", HEAT: "55000"}, [1, 1, 1, 1], []),
    "a clock that follows the load": ({GOVERNOR: "ondemand"}, [1, 1], ["governor ondemand"]),
    "heat": ({HEAT: "85000"}, [1, 1], ["85 °C"]),
    "half as fast in the end": ({}, [1, 1, 2, 2], ["case 1 slowed down by 100 %"]),
    "faster in the end": ({}, [2, 2, 1, 1], []),
}


@pytest.mark.parametrize("doubt", DOUBTS)
def test_what_makes_figures_doubtful_is_said(doubt: str, tmp_path: Path) -> None:
    files, totals, expected = DOUBTS[doubt]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    said = notes([_timing(totals)], Machine(root=tmp_path, processor="aarch64"))
    assert [note[: len(start)] for note, start in zip(said, expected, strict=True)] == expected


@pytest.mark.parametrize("count", [1, A_BLOCK, A_BLOCK + 1])
def test_the_table_fits_80_columns_whatever_the_number_of_cases(count: int) -> None:
    name = "a_very_long_name_" * 6 + ".int8.tflite"
    text = table([_timing([0.0123456, 0.0123456], name=name)] * count)
    lines = text.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert [line.split(":")[0] for line in lines[:count]] == [f"case {i + 1}" for i in range(count)]
    for stage in STAGES:
        cells = [
            word
            for line in lines
            if line.startswith(stage + " ")
            for word in line.removesuffix(STEPS[stage]).split()[1:]
        ]
        assert cells == ["1.543"] * count
    ends = [line.split()[-1] for line in lines if line.startswith("end to end")]
    assert ends == ["12.346"] * (1 + (count > A_BLOCK))


def test_the_table_of_one_case_says_what_the_steps_are() -> None:
    text = table([_timing([0.0123456, 0.0123456])])
    assert all(meaning in text for meaning in STEPS.values())
    assert STEPS.keys() == set(STAGES)


def _kedge(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "error", "-m", "kedge_runtime.cli", "bench"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )


def test_json_is_all_that_stdout_holds(sealed: Path) -> None:
    pytest.importorskip("onnxruntime")
    names = [sealed / "tiny.tflite", sealed / "tiny.onnx"]
    done = _kedge(*names, "--threads", "1,2", "--rounds", 3, "--warm-up", 1, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    keys = "schema command machine notes images rounds warm_up cases failed"
    assert list(answer) == keys.split()
    assert (answer["schema"], answer["command"], answer["failed"]) == (1, "bench", [])
    assert (answer["images"], answer["rounds"], answer["warm_up"]) == (2, 3, 1)
    assert answer["machine"]["processor"]
    assert "numpy" in answer["machine"]["packages"]
    found = [(case["artefact"], case["engine"], case["threads"]) for case in answer["cases"]]
    engines = zip(names, ("litert", "onnxruntime"), strict=True)
    assert found == [(str(name), engine, n) for name, engine in engines for n in (1, 2)]
    for case in answer["cases"]:
        assert list(case["stages"]) == STAGES
        for spread in (*case["stages"].values(), case["end_to_end"]):
            assert 0 <= spread["median_ms"] <= spread["p90_ms"]
        assert case["peak_bytes"] > 10 << 20
        assert case["folder_per_second"] > 0


def test_the_table_is_for_people(sealed: Path, pictures: list[Path]) -> None:
    done = _kedge(sealed / "tiny.tflite", pictures[0], "--rounds", 2)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    threads = "1 thread" if cores() == 1 else f"{cores()} threads"
    assert lines[0] == f"case 1: tiny.tflite, litert, {threads}"
    assert [line.split()[0] for line in lines[3:11]] == STAGES


def test_a_case_that_can_not_run_does_not_end_the_others(sealed: Path) -> None:
    damaged = sealed / "none.onnx"
    damaged.write_bytes(
        seal("onnx", b"\x08\x09", BenchCase(sealed / "tiny.onnx").open().contract, Golden.none())
    )
    done = _kedge(damaged, sealed / "tiny.tflite", "--rounds", 2, "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 2
    assert [case["artefact"] for case in answer["cases"]] == [str(sealed / "tiny.tflite")]
    assert [failure["artefact"] for failure in answer["failed"]] == [str(damaged)]
    assert done.stderr.startswith(f"kedge: {damaged}: ")


def test_a_bad_artefact_and_a_bad_picture_do_not_end_the_others(
    sealed: Path, pictures: list[Path]
) -> None:
    damaged, broken = sealed / "damaged.tflite", sealed / "broken.jpg"
    damaged.write_bytes((sealed / "tiny.tflite").read_bytes().replace(b"red", b"RED"))
    broken.write_bytes(pictures[0].read_bytes()[:200])
    words = [damaged, sealed / "none.onnx", sealed / "tiny.tflite", broken, pictures[0]]
    done = _kedge(*words, "--rounds", 2, "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["images"]) == (2, 1)
    assert [case["artefact"] for case in answer["cases"]] == [str(sealed / "tiny.tflite")]
    failed = [failure.get("artefact", failure.get("image")) for failure in answer["failed"]]
    assert failed == list(map(str, [damaged, sealed / "none.onnx", broken]))
    assert done.stderr.count("\nkedge: ") >= 2


MISTAKES = {
    "no golden pictures": (["features.tflite"], "no golden images"),
    "a picture that isn't there": (["tiny.tflite", "gone.jpg"], "gone.jpg: no such file"),
    "an unknown engine": (["tiny.tflite", "--engine", "litert,gpu"], "'gpu' is not one of"),
    "no thread": (["tiny.tflite", "--threads", "1,0"], "0 is not in the range"),
    "one round": (["tiny.tflite", "--rounds", "1"], "1 is not in the range"),
    "an engine for other files": (["tiny.tflite", "--engine", "opencv"], "allowed are litert"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    mistake: str, sealed: Path, contracts: dict[str, Contract], models: dict[str, bytes]
) -> None:
    path = sealed / "features.tflite"
    path.write_bytes(seal("tflite", models["tflite"], contracts["tflite"], Golden.none()))
    words, message = MISTAKES[mistake]
    places = [sealed / word if "." in word else word for word in words]
    done = _kedge(*places)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
