"""A conversion whose process dies: one line for what it died of, and the other targets are made."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest

import deadly
from kedge_convert.job import Job, Outcome
from kedge_convert.load.request import SourceRequest
from kedge_convert.sampling import Sampling
from kedge_convert.targets import TARGETS, parse_targets
from kedge_convert.worker import process, supervisor
from kedge_convert.worker.process import Bounds, family
from kedge_convert.worker.progress import Progress
from kedge_convert.worker.worker import refused
from kedge_runtime.errors import UsageError
from kedge_runtime.image.input_options import InputOptions

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that tells")

FIRST, SECOND, THIRD = TARGETS[:3]
ANY = Bounds()
LEAST = 500_000_000  # bytes: several times what the worker takes without a toolkit
Convert = Callable[..., list[Outcome]]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each worker as the command does."""
    monkeypatch.setattr(process, "get_context", get_context)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "plan"


@pytest.fixture
def convert(plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Convert:
    """Return a run of a plan; its temporary folder must be empty afterwards."""
    rooms = tmp_path / "temporary"
    rooms.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(rooms))

    def run(deaths: dict[str, str], bounds: Bounds = ANY) -> list[Outcome]:
        plan.write_text(json.dumps(deaths))
        try:
            with Progress() as progress:
                return supervisor.convert(
                    deadly.job(plan, tmp_path / "out"), progress, bounds, deadly.work
                )
        finally:
            assert list(rooms.iterdir()) == []

    return run


def passed(outcomes: list[Outcome]) -> list[bool]:
    return [outcome.verdict.passed for outcome in outcomes]


DEATHS = {
    "segfault": r"the process crashed \(SIGSEGV\)",
    "abort": r"the process crashed \(SIGABRT\)",
    "killed": r"the process was killed \(SIGKILL\), maybe by the system for lack of memory",
    "exit": r"the process ended by itself \(exit code 3\)",
    "too large": r"out of memory",
    "fill": r"out of memory: it took 0\.[5-9]\d GB, --memory-limit is 0\.50 GB",
    "fill in a child": r"out of memory: it took 0\.[5-9]\d GB, --memory-limit is 0\.50 GB",
    "give up": "no such operator",
}


@pytest.mark.parametrize("way", DEATHS)
def test_a_death_is_one_line_and_the_other_targets_are_made(
    convert: Convert, tmp_path: Path, way: str
) -> None:
    outcomes = convert({str(SECOND): way}, Bounds(memory=LEAST))
    assert [outcome.target for outcome in outcomes] == [FIRST, SECOND, THIRD]
    assert passed(outcomes) == [True, False, True]
    (line,) = outcomes[1].verdict.reasons
    log = tmp_path / "out" / "plan.log"
    assert re.fullmatch(rf"plan: export {SECOND}: {DEATHS[way]}; log {log}", line)
    assert "loading on stdout" in log.read_text()
    made = {FIRST.file_name("model"), THIRD.file_name("model")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*made, "plan.log"}


@pytest.mark.parametrize("way", ["segfault", "abort", "fill"])
def test_the_log_says_where_it_was(convert: Convert, tmp_path: Path, way: str) -> None:
    convert({str(SECOND): way}, Bounds(memory=LEAST))
    log = (tmp_path / "out" / "plan.log").read_text()
    assert "Fatal Python error" in log
    assert "deadly.py" in log


def test_a_closed_stream_of_the_roots_handler_loses_no_line(tmp_path: Path) -> None:
    # As a library leaves it that is imported while its output is silenced.
    script = """
import io, logging, sys
from kedge_convert.worker import worker
stream = io.StringIO()
logging.basicConfig(stream=stream)
stream.close()
with open(sys.argv[1], "w") as log:
    worker._redirect_output(log.fileno())
    logging.getLogger("kedge").info("a line")
"""
    log = tmp_path / "log"
    subprocess.run([sys.executable, "-c", script, str(log)], check=True)
    assert log.read_text().splitlines() == ["a line"]


def test_time_is_counted_for_each_target(convert: Convert) -> None:
    outcomes = convert({str(FIRST): "hang", str(THIRD): "hang"}, Bounds(seconds=3))
    assert passed(outcomes) == [False, True, False]
    assert (
        f"export {FIRST}: out of time: --time-limit is 3 s; log" in outcomes[0].verdict.reasons[0]
    )


def test_mapped_files_are_no_false_alarm(convert: Convert) -> None:
    pytest.importorskip("tensorflow", reason="it is its library that is mapped")
    assert all(passed(convert({str(FIRST): "map a file"}, Bounds(memory=LEAST // 2))))


def test_every_target_may_die(convert: Convert) -> None:
    deaths = {str(FIRST): "segfault", str(SECOND): "abort", str(THIRD): "killed"}
    assert passed(convert(deaths)) == [False] * 3


def test_what_cannot_be_loaded_is_not_tried_again(
    convert: Convert, capfd: pytest.CaptureFixture[str]
) -> None:
    outcomes = convert({"load model": "segfault"})
    assert passed(outcomes) == [False] * 3
    (line,) = {outcome.verdict.reasons for outcome in outcomes}
    assert line[0].startswith("plan: load model: the process crashed (SIGSEGV); log ")
    assert re.fullmatch(r"load model  stopped after \d+\.\d s\n", capfd.readouterr().err)


def test_without_preparation_the_weights_are_stock(
    convert: Convert, capfd: pytest.CaptureFixture[str]
) -> None:
    outcomes = convert({"prepare weights": "segfault"})
    assert passed(outcomes) == [True] * 3
    said = "plan: preparation, prepare weights: the process crashed (SIGSEGV); log "
    assert all(outcome.notes[0].startswith(said) for outcome in outcomes)
    err = capfd.readouterr().err
    assert "; continuing with stock weights\n" in err
    assert err.count("a warning\n") == 1


def test_the_users_mistake_is_raised_and_nothing_is_left(convert: Convert, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the user's mistake"):
        convert({str(FIRST): "refuse"})
    assert not (tmp_path / "out").exists()


def test_a_refusal_leaves_the_toolkits_error_behind() -> None:
    """Where exceptions are pickled whole, the parent would import TensorFlow to read it."""
    try:
        try:
            raise ValueError("a toolkit's")
        except ValueError as cause:
            raise UsageError("the user's mistake") from cause
    except UsageError as error:
        sent = refused(error).error
    assert str(sent) == "the user's mistake"
    assert (sent.__cause__, sent.__context__, sent.__traceback__) == (None, None, None)


def test_a_bug_shows_its_traceback(convert: Convert) -> None:
    with pytest.raises(supervisor.WorkerError, match=r"(?s)deadly\.py.*ZeroDivisionError: ours"):
        convert({str(SECOND): "bug"})


@pytest.mark.slow
def test_a_real_conversion_survives_what_its_toolkit_does(
    tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    labels = str(tiny_model.with_name("labels.txt"))
    request = SourceRequest(str(tiny_model), pixels=InputOptions("imagenet", "tf"), labels=labels)
    targets = parse_targets("tflite:float16,tflite:dynamic,tflite:float32")
    job = Job(request, targets, tmp_path / "out", pictures, Sampling(10, 10))
    with Progress(silent=True) as progress:
        outcomes = supervisor.convert(job, progress, Bounds(memory=3 * LEAST), deadly.real)
    assert passed(outcomes) == [False, False, True]
    log = tmp_path / "out" / "tiny.keras.log"
    crashed, full = (outcome.verdict.reasons[0] for outcome in outcomes[:2])
    assert crashed == (
        f"tiny.keras: export tflite:float16: the process crashed (SIGSEGV); log {log}"
    )
    assert full.startswith("tiny.keras: export tflite:dynamic: out of memory: it took 1.5")
    assert log.read_text().count("Fatal Python error") == 2
    assert {path.name for path in log.parent.iterdir()} == {log.name, "tiny.float32.tflite"}


def test_an_old_log_does_not_outlive_a_good_run(convert: Convert, tmp_path: Path) -> None:
    convert({str(SECOND): "abort"})
    assert passed(convert({})) == [True] * 3
    assert not (tmp_path / "out" / "plan.log").exists()


def hanging(plan: Path, out: Path, temporary: Path) -> "subprocess.Popen[str]":
    """Return a running supervisor whose worker hangs in its second target."""
    plan.write_text(json.dumps({str(SECOND): "hang"}))
    command = [sys.executable, "-c", "import deadly; deadly.main()", str(plan), str(out)]
    helpers = str(Path(deadly.__file__).parent)
    path = os.pathsep.join([helpers, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(temporary)}
    parent = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert parent.stderr
    said = ""  # sign by sign: a stage's line ends with the stage
    while not said.endswith(f"export {SECOND}"):
        sign = parent.stderr.read(1)
        assert sign, said
        said += sign
    return parent


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_the_worker_ends_with_its_parent(plan: Path, tmp_path: Path, number: int) -> None:
    temporary, out = tmp_path / "temporary", tmp_path / "out"
    temporary.mkdir()
    parent = hanging(plan, out, temporary)
    processes = list(family(parent.pid))
    assert len(processes) >= 2
    parent.send_signal(number)
    parent.communicate(timeout=60)
    patience = time.monotonic() + 60
    while any(alive(process) for process in processes):
        assert time.monotonic() < patience
    if number == signal.SIGINT:
        assert list(temporary.iterdir()) == []
        assert [path.name for path in out.iterdir()] == [FIRST.file_name("model")]


def alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
