"""The worker of a conversion has no network and its own files alone: the kernel says no."""

import platform
import re
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

import pytest

import hostile_programs
import prying
from kedge_convert.job import Job
from kedge_convert.load.request import SourceRequest
from kedge_convert.sampling import Sampling
from kedge_convert.targets import TARGETS, Target
from kedge_convert.worker import process, supervisor
from kedge_convert.worker.process import Bounds
from kedge_convert.worker.progress import Progress
from kedge_convert.worker.worker import SWITCH, Work, rights_of
from kedge_runtime import sandbox
from kedge_runtime.checks import doctor
from kedge_runtime.checks.hardware import Machine
from kedge_runtime.errors import UsageError
from kedge_runtime.image.input_options import InputOptions

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that confines")
confined = pytest.mark.skipif(bool(sandbox.unsupported()), reason=str(sandbox.unsupported()))
REFUSED = {
    **dict.fromkeys(
        ("connect", "datagram", "connect in a child", "local socket"), "operation not permitted"
    ),
    **dict.fromkeys(
        ("write", "write in a thread", "truncate", "remove", "link", "read", "list"),
        "permission denied",
    ),
    **dict.fromkeys(("other temporary files", "shadow"), "permission denied"),
    "move out": "permission denied",
    "signal": "operation not permitted",
}
NEEDED = ("model", "image", "out", "temporary", "library", "machine", "child", "pipe")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each worker as the command does."""
    monkeypatch.setattr(process, "get_context", get_context)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Return a job whose model names what to try; its images lie behind a link."""
    for name in ("model", "images", "elsewhere", "temporary", prying.OUTSIDE):
        (tmp_path / name).mkdir()
    (tmp_path / prying.OUTSIDE / "secret").write_text("secret")
    (tmp_path / "elsewhere" / "image").write_text("x")
    (tmp_path / "images" / "one.png").symlink_to(tmp_path / "elsewhere" / "image")
    (tmp_path / "model" / "lines").write_text("\n".join((*REFUSED, *NEEDED)))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    # As from the user's own folder: `python -m` would let the worker read it.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    request = SourceRequest(str(tmp_path / "model" / "lines"))
    return Job(request, TARGETS[:1], Path("out"), tmp_path / "images")


def said(job: Job, capfd: pytest.CaptureFixture[str], work: Work = prying.work) -> dict[str, str]:
    """Return how the job's tries went, by name."""
    with Progress() as progress:
        supervisor.convert(job, progress, Bounds(), work)
    lines = (line.partition(": ") for line in capfd.readouterr().err.splitlines())
    return {name: how for name, _, how in lines}


@confined
def test_a_worker_reaches_its_own_files_and_nothing_else(
    job: Job, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert said(job, capfd) == {**REFUSED, **dict.fromkeys(NEEDED, "done")}
    assert [path.name for path in (tmp_path / prying.OUTSIDE).iterdir()] == ["secret"]
    assert (tmp_path / prying.OUTSIDE / "secret").read_text() == "secret"


def test_it_can_be_switched_off_and_the_log_tells(
    job: Job, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, "off")
    found = said(job, capfd)
    free = (*NEEDED, "write", "truncate", "remove", "move out", "list", "datagram", "signal")
    assert [name for name in free if found[name] != "done"] == []
    log = (tmp_path / "out" / "lines.log").read_text()
    assert f"sandbox: disabled by {SWITCH}" in log


@confined
def test_missing_weights_are_fetched_by_a_process_that_sees_no_model(
    job: Job, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "fetch", prying.fetch)
    with Progress() as progress:
        (outcome,) = supervisor.convert(job, progress, Bounds(), prying.lacking)
    assert outcome.verdict.reasons[0].startswith("lines: ")
    assert "found" in outcome.verdict.reasons[0]
    assert re.fullmatch(r"download weights  \d+\.\d s\n", capfd.readouterr().err)


def test_weights_that_nobody_can_fetch_are_said_once(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "fetch", prying.lacking)
    with pytest.raises(UsageError, match="can't be downloaded"), Progress(silent=True) as progress:
        supervisor.convert(job, progress, Bounds(), prying.lacking)


def test_images_behind_links_are_the_jobs(job: Job, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir()
    (tmp_path / "images" / "more").symlink_to(tmp_path / "elsewhere" / "deep")
    (tmp_path / "elsewhere" / "deep" / "back").symlink_to(tmp_path / "images")
    reads = rights_of(job).reads
    assert {tmp_path / "elsewhere" / "image", tmp_path / "elsewhere" / "deep"} <= set(reads)
    assert not {tmp_path, tmp_path / "elsewhere", Path.home()} & set(reads)


@confined
def test_the_kernel_stops_what_no_check_has_seen(
    tmp_path: Path, pictures: Path, targets: tuple[Target, ...] = TARGETS[:1]
) -> None:
    """The second wall: the same file as in test_programs.py, with the first one taken away."""
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    (tmp_path / prying.OUTSIDE).mkdir()
    victim = tmp_path / prying.OUTSIDE / "victim"
    model = hostile_programs.writes_when_loaded(tmp_path, victim)
    (tmp_path / "labels").write_text("one\ntwo\nthree\nfour\nfive\n")
    pixels, labels = InputOptions("imagenet", "tf"), str(tmp_path / "labels")
    request = SourceRequest(str(model), pixels=pixels, labels=labels)
    job = Job(request, targets, tmp_path / "out", pictures, Sampling(10, 10))
    with (
        pytest.raises(UsageError, match=r"(?i)permission ?denied"),
        Progress(silent=True) as progress,
    ):
        supervisor.convert(job, progress, Bounds(), prying.unchecked)
    assert not victim.exists()


def test_the_doctor_tells_what_a_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor.check_sandbox(Machine())
    assert (found.state == "ok") == (not sandbox.unsupported())
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    found = doctor.check_sandbox(Machine())
    assert found.state == "note"
    assert "network not held back: no filter for riscv64" in found.detail
