"""Watch a folder for a newer model, try it beside the old one, and switch to it or back.

One thread does it step by step: verify, shadow run, marker, switch, trial. The stream's thread
only offers frames, and passes the events on.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kedge_runtime.arrays import Pixels
from kedge_runtime.artefact.content import read_content
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import Result
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import ArtefactError, KedgeError, one_line
from kedge_runtime.output import note, percent, say
from kedge_runtime.streams.events import Event
from kedge_runtime.updates.inbox import Inbox, UpdateFile
from kedge_runtime.updates.shadow import ShadowFrames, ShadowLimits, ShadowTally, run_shadow
from kedge_runtime.updates.state import BadModel, OnTrial, Settled, UpdateState, VerifiedModel
from kedge_runtime.updates.store import ModelStore
from kedge_runtime.updates.switching import SwitchingPredictor
from kedge_runtime.updates.verifying import RefusedUpdateError, machine_of, verify_apart

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust

SHADOW, SWITCHED, KEPT = "update-shadow", "update-switched", "update-kept"
REFUSED, REVERTED = "update-refused", "update-reverted"
PAUSE = 2.0  # seconds between two looks into the folder
PATIENCE = 5.0  # seconds that the stream's end waits for the thread


@dataclass(frozen=True)
class UpdatePlan:
    """How updates are found and tried. `folder`: the watched one; `trust`: of every model."""

    folder: Path
    trust: "Trust | None"
    engine: EngineOptions
    limits: ShadowLimits


class _EndedError(Exception):
    """Raised in the thread when the stream ends."""


class Updater:
    """An observer of the stream that changes its model.

    `names`: the artefact in use, for messages; it changes with the model.
    """

    def __init__(
        self, plan: UpdatePlan, store: ModelStore, state: Settled, model: SwitchingPredictor
    ) -> None:
        """Take the model in use and its state; start to watch the folder."""
        self.names = [state.in_use.name]
        self._plan, self._store, self._model = plan, store, model
        self._state: UpdateState = state
        self._inbox = Inbox(plan.folder, plan.trust)
        self._stop = threading.Event()
        self._frames = ShadowFrames(self._stop)
        self._events, self._complaint = deque[Event](), ""
        self._thread = threading.Thread(target=self._work, name="kedge-updates", daemon=True)
        self._thread.start()

    def observe(self, pixels: Pixels, result: Result) -> Iterable[Event]:
        """Offer a frame to the shadow run; return what happened since the last one."""
        self._frames.offer(pixels, result)
        while self._events:
            yield self._events.popleft()

    def tell(self, kind: str, text: str, **figures: float) -> None:
        """Report an event with the next frame."""
        self._events.append(Event(time.time(), kind, text, figures))

    def close(self) -> None:
        """End the thread. A trial that isn't over is repeated by the next process."""
        self._stop.set()
        self._thread.join(PATIENCE)
        if isinstance(self._state, OnTrial):
            self._state = self._state.interrupted()
        self._save()
        for event in self._events:
            note(event.text)
        self._store.close()

    def _work(self) -> None:
        while not self._stop.wait(PAUSE):
            try:
                self._store.write(self._state)
                update = self._inbox.newest(self._state)
                self._tell_refused()
                if update is not None:
                    self._try(update)
                self._complaint = ""
            except _EndedError:
                return
            except (KedgeError, OSError) as error:
                self._complain(error)

    def _try(self, update: UpdateFile) -> None:
        """Take an update through all steps; a model that fails one is never tried again."""
        try:
            model = self._verified(update)
            tally = self._beside_the_old(model)
            self._switch(model, tally)
        except RefusedUpdateError as refused:
            self._refuse(update, str(refused))

    def _verified(self, update: UpdateFile) -> VerifiedModel:
        """Copy an update and verify the copy, in another process."""
        content = read_content(update.path, trust=self._plan.trust)
        if content.digest != update.digest:
            raise ArtefactError(f"{update.path}: it changed while it was read")
        model = VerifiedModel(
            update.digest,
            content.format,
            str(update.path),
            update.serial,
            update.changed,
            machine_of(self._plan.engine),
        )
        verify_apart(self._store.put(content), self._plan.engine)
        self._check_stop()
        return model

    def _beside_the_old(self, model: VerifiedModel) -> ShadowTally:
        """Run the shadow, in a worker process: a crash costs that process alone."""
        limits = self._plan.limits
        self.tell(
            SHADOW,
            f"{model.name}: verified; it runs beside {self.names[0]} on {limits.frames} frames",
            **_serial(model),
        )
        with self._opened(model, replace(self._plan.engine, isolate=True, threads=1)) as shadow:
            tally = run_shadow(shadow, self._frames, limits)
        if tally is None:
            raise _EndedError
        return tally

    def _opened(self, model: VerifiedModel, engine: EngineOptions) -> Classifier:
        """Open a copy. Raises RefusedUpdateError where it can't take the old model's place."""
        try:
            opened = Classifier.of(self._store.get(model, self._plan.trust), engine)
            opened.check_answers()
        except KedgeError as error:
            raise RefusedUpdateError(one_line(error)) from None
        if opened.classes.multi_label != self._model.classes.multi_label:
            raise RefusedUpdateError("it answers with one class, and the old one with several")
        return opened

    def _switch(self, model: VerifiedModel, tally: ShadowTally) -> None:
        """Write the marker, open the model in this process, and let it answer on trial."""
        assert isinstance(self._state, Settled)
        trial_state = self._state.trying(model)
        self._store.write(trial_state)
        self._state = trial_state
        opened = self._opened(model, self._plan.engine)
        trial = self._model.begin(opened, self._plan.limits.frames)
        self.names[:] = [model.name]
        agreement = f"agreement {percent(tally.agreement)} on {tally.frames} frames"
        self.tell(SWITCHED, f"{model.name}: answers from now on ({agreement})", **_serial(model))
        while not trial.ended.wait(0.2):
            self._check_stop()
        self._model.keep()
        if trial.error is not None or self._model.model is not opened:
            raise RefusedUpdateError(f"it failed on a frame: {trial.error}")
        self._state = trial_state.passed()
        self._write()
        self.tell(KEPT, f"{model.name}: kept after {self._plan.limits.frames} frames")

    def _write(self) -> None:
        """Write the state; on a full disk, wait until it can be written."""
        while True:
            self._check_stop()
            try:
                return self._store.write(self._state)
            except (KedgeError, OSError) as error:
                self._complain(error)
                self._stop.wait(PAUSE)

    def _refuse(self, update: UpdateFile, reason: str) -> None:
        """Note a bad model; where it was on trial, the old one is back."""
        if isinstance(self._state, OnTrial):
            self._state = self._state.failed(reason)
            self.names[:] = [self._state.in_use.name]
            text = f"{update.path}: {reason}; {self.names[0]} answers again"
            self.tell(REVERTED, text, **_serial(update))
        else:
            assert isinstance(self._state, Settled)
            bad = BadModel(update.digest, str(update.path), reason)
            self._state = self._state.refusing(bad)
            self.tell(REFUSED, f"{update.path}: refused: {reason}", **_serial(update))
        self._store.write(self._state)

    def _tell_refused(self) -> None:
        for each in self._inbox.refused():
            self.tell(REFUSED, f"{each.path}: refused: {each.reason}")

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise _EndedError

    def _complain(self, error: Exception) -> None:
        """Say once what keeps updates from going on, such as a full disk."""
        if str(error) != self._complaint:
            say(f"updates wait: {one_line(error)}")
        self._complaint = str(error)

    def _save(self) -> None:
        try:
            self._store.write(self._state)
        except KedgeError as error:
            say(error)


def _serial(model: VerifiedModel | UpdateFile) -> dict[str, float]:
    return {} if model.serial is None else {"serial": model.serial}
