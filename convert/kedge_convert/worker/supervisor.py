"""The conversion in a worker process; when that dies, another one goes on with what is left."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from kedge_convert import pipeline
from kedge_convert.job import Job, Outcome, failed
from kedge_convert.load import application
from kedge_convert.staging import output_folder
from kedge_convert.targets import Target
from kedge_convert.verdict import Verdict
from kedge_convert.worker.events import PREPARATION, Ended, Noted, Said
from kedge_convert.worker.process import Bounds, Heard, WorkerDiedError, started
from kedge_convert.worker.progress import Progress
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
    """Do as `pipeline.convert` does, in processes that may die.

    What one dies of is the outcome of the target it was at. A worker has no network, and writes to
    the job's folder and `folders` only, where the system can hold it to that. Raises KedgeError,
    and WorkerError.
    """
    with output_folder(job.out):
        supervisor = Supervisor(job, progress, bounds, work, folders)
        supervisor.job.log.unlink(missing_ok=True)
        while supervisor.left:
            supervisor.employ()
        return [supervisor.done[target] for target in job.targets]


def fetch(job: Job, progress: Progress) -> Iterator[Outcome]:
    """Download the weights of a card into Keras's cache. Raises UsageError when that fails."""
    with progress.stage("download weights"):
        application.build(card(job.request.model), job.request.weights)
    yield from ()


@dataclass
class Supervisor:
    """A job, what is done of it, and what went wrong."""

    job: Job
    progress: Progress
    bounds: Bounds
    work: Work
    folders: tuple[Path, ...] = ()
    done: dict[Target, Outcome] = field(default_factory=dict)
    said: set[Said | Noted] = field(default_factory=set)
    troubled: bool = False
    logged: bytes = b""
    fetched: bool = False

    @property
    def left(self) -> tuple[Target, ...]:
        """The targets without an outcome."""
        return tuple(target for target in self.job.targets if target not in self.done)

    @property
    def model(self) -> str:
        """The model as messages name it."""
        return Path(self.job.request.model).name

    def employ(self) -> None:
        """Give what is left to a new worker, for as long as it lives.

        Weights that it lacks are downloaded by another one, which sees no file of a stranger's.
        """
        try:
            self._employ(self.work, rights_of(self.job, *self.folders))
        except application.AbsentError:
            if self.fetched:
                raise
            self.fetched = True
            self._employ(fetch)

    def _employ(self, work: Work, rights: Rights | None = None) -> None:
        self.progress.turn("")
        self.troubled = False
        job = replace(self.job, targets=self.left)
        with temporary_folder() as folder:
            with started(WorkerRequest(job, work, os.getpid(), folder, rights)) as worker:
                try:
                    for message in worker.messages(self.bounds):
                        self._take(message)
                except WorkerDiedError as death:
                    self.progress.tell(Ended(whole=False))
                    self._blame(self._line(str(death)))
            if self.troubled:
                self._keep(worker.log.read())

    def _take(self, message: Heard) -> None:
        match message:
            case Done(outcome):
                self.done[outcome.target] = self._told(outcome)
            case Refused(error):
                raise error
            case Broken(trace):
                raise WorkerError(f"in the worker process:\n{trace}")
            case Exhausted():
                raise WorkerDiedError("out of memory")
            case Said() | Noted() if message in self.said:
                pass  # by the worker before
            case _:
                self.said |= {message} if isinstance(message, Said | Noted) else set()
                self.progress.tell(message)

    def _told(self, outcome: Outcome) -> Outcome:
        """Say of a conversion that failed which one it was, and where more is to be read."""
        if outcome.checked:
            return outcome
        return replace(outcome, verdict=Verdict(tuple(map(self._line, outcome.verdict.reasons))))

    def _line(self, reason: str) -> str:
        self.troubled = True
        return f"{self.model}: {self.progress.position}: {reason}; log {self.job.log}"

    def _blame(self, line: str) -> None:
        """Write a death down to what it happened in, so that the next worker passes that over."""
        part = self.progress.position.part
        if part == PREPARATION:
            self.progress.say(f"{line}; going on with stock weights")
            self.job = replace(self.job, prepare=False, unprepared=line)
            return
        guilty = [target for target in self.left if part in ("", str(target))]
        self.done |= {target: failed(target, line) for target in guilty}

    def _keep(self, written: bytes) -> None:
        """Add a worker's log to the one that is kept."""
        self.logged += written
        try:
            write_whole(self.job.log, self.logged)
        except UsageError as error:  # a full disk, say: the outcomes matter more
            self.progress.say(str(error))
