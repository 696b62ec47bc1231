"""Supervise a conversion in a worker process; when that dies, another one continues."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from kedge_convert import pipeline
from kedge_convert.job import Job, Outcome, failed
from kedge_convert.load import application
from kedge_convert.load.registry import about
from kedge_convert.quantise.effort import FAST
from kedge_convert.staging import output_folder
from kedge_convert.targets import Target
from kedge_convert.verdict import Verdict
from kedge_convert.worker.process import Bounds, Received, WorkerDiedError, started
from kedge_convert.worker.progress import PREPARATION, NoteLine, Progress, StageEnded, WarningLine
from kedge_convert.worker.worker import (
    Broken,
    Done,
    Exhausted,
    Refused,
    Work,
    WorkerRequest,
    rights_of,
)
from kedge_models.cards import card
from kedge_runtime.errors import UsageError
from kedge_runtime.files import temporary_folder, write_whole
from kedge_runtime.sandbox import Rights


class WorkerError(Exception):
    """A bug of ours in the worker; the message is its traceback."""


def convert(
    job: Job,
    progress: Progress,
    bounds: Bounds,
    work: Work = pipeline.convert,
    folders: tuple[Path, ...] = (),
) -> list[Outcome]:
    """Do as `pipeline.convert` does, in worker processes that may die.

    The cause of a death becomes the outcome of the current target. A worker has no network, and
    writes to the job's folder and `folders` only, where the system can enforce that. Raises
    KedgeError, and WorkerError.
    """
    rights = rights_of(job, *folders)
    with output_folder(job.out):
        supervisor = Supervisor(job, progress, bounds)
        supervisor.job.log.unlink(missing_ok=True)
        fetched = False
        while supervisor.left:
            try:
                supervisor.run(work, rights)
            except application.AbsentError:
                if fetched:
                    raise
                fetched = True
                # With the network, and without any untrusted file.
                supervisor.run(fetch)
        return [supervisor.done[target] for target in job.targets]


def fetch(job: Job, progress: Progress) -> Iterator[Outcome]:
    """Download the weights of a card into Keras's cache. Raises UsageError when that fails."""
    with progress.stage("download weights"), about(job.request.model):
        application.build(card(job.request.model), job.request.weights)
    yield from ()


@dataclass
class Supervisor:
    """A job, its outcomes so far, and what went wrong.

    `shown`: lines that a worker has sent before. `failing`: whether the last one had a failure.
    """

    job: Job
    progress: Progress
    bounds: Bounds
    done: dict[Target, Outcome] = field(default_factory=dict)
    shown: set[WarningLine | NoteLine] = field(default_factory=set)
    failing: bool = False
    log: bytes = b""

    @property
    def left(self) -> tuple[Target, ...]:
        """The targets without an outcome."""
        return tuple(target for target in self.job.targets if target not in self.done)

    def run(self, work: Work, rights: Rights | None = None) -> None:
        """Have a new worker do the work for the targets that are left, until it ends or dies."""
        self.progress.start_part("")
        self.failing = False
        job = replace(self.job, targets=self.left)
        with temporary_folder() as folder:
            with started(WorkerRequest(job, work, os.getpid(), folder, rights)) as worker:
                try:
                    for message in worker.messages(self.bounds):
                        self._handle(message)
                except WorkerDiedError as death:
                    self.progress.report(StageEnded(complete=False))
                    self._blame(self._line(str(death)))
            if self.failing:
                self._write_log(worker.log.read())

    def _handle(self, message: Received) -> None:
        match message:
            case Done(outcome):
                self.done[outcome.target] = self._located(outcome)
            case Refused(error):
                raise error
            case Broken(trace):
                raise WorkerError(f"in the worker process:\n{trace}")
            case Exhausted():
                raise WorkerDiedError("out of memory")
            case WarningLine() | NoteLine() if message in self.shown:
                pass  # by the worker before
            case _:
                self.shown |= {message} if isinstance(message, WarningLine | NoteLine) else set()
                self.progress.report(message)

    def _located(self, outcome: Outcome) -> Outcome:
        """Add model, stage and log to the reasons of a conversion that gave no file."""
        if outcome.checked:
            return outcome
        return replace(outcome, verdict=Verdict(tuple(map(self._line, outcome.verdict.reasons))))

    def _line(self, reason: str) -> str:
        self.failing = True
        model = Path(self.job.request.model).name
        return f"{model}: {self.progress.position}: {reason}; log {self.job.log}"

    def _blame(self, line: str) -> None:
        """Blame a death on the current part, so that the next worker skips it."""
        part = self.progress.position.part
        if part == PREPARATION:
            self.progress.say(f"{line}; continuing with stock weights")
            self.job = replace(self.job, effort=FAST, unprepared=line)
            return
        guilty = [target for target in self.left if part in ("", str(target))]
        self.done |= {target: failed(target, line) for target in guilty}

    def _write_log(self, output: bytes) -> None:
        """Add a worker's output to the job's log."""
        self.log += output
        try:
            write_whole(self.job.log, self.log)
        except UsageError as error:  # a full disk, say: the outcomes matter more
            self.progress.say(str(error))
