"""Choose the model that a new process begins with: verified, and never one that went bad."""

from dataclasses import dataclass
from pathlib import Path

from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.errors import ArtefactError, KedgeError, UsageError, one_line
from kedge_runtime.output import quiet, say
from kedge_runtime.updates.state import BadModel, OnTrial, Settled, VerifiedModel
from kedge_runtime.updates.store import ModelStore
from kedge_runtime.updates.updater import UpdatePlan
from kedge_runtime.updates.verifying import (
    RefusedUpdateError,
    UntriedError,
    machine_of,
    verify_apart,
)

CRASHED = "the process ended while it was on trial"


@dataclass(frozen=True)
class Begun:
    """The model of a new process, its state, and what happened before. `lines`: for events."""

    state: Settled
    model: Classifier
    lines: tuple[str, ...] = ()


def begin(base: Path, store: ModelStore, plan: UpdatePlan) -> Begun:
    """Open the model in use, or `base` where that can't be used.

    The state is on the disk then, unless that is full: a device answers all the same. A model on
    trial ended the last process, so it is bad. Another `base` than before begins anew. Raises
    ArtefactError where `base` fails verify, and what opening it raises.
    """
    content = read_content(base, trust=plan.trust)
    state, lines = _after_crash(store)
    bad = state.bad if state else ()
    if state is not None and state.base == content.digest:
        _noted(state, store)
        try:
            return Begun(state, _opened(state.in_use, store, plan), lines)
        except (KedgeError, RefusedUpdateError) as error:
            bad, line = _after_failure(state, error, content)
            lines += line
    settled, model = _with_base(content, store, plan, bad)
    return Begun(settled, model, lines)


def _after_failure(
    state: Settled, error: Exception, base: ModelContent
) -> tuple[tuple[BadModel, ...], tuple[str, ...]]:
    """Return the bad models, and a line where the model in use gives way to `base`."""
    model, reason = state.in_use, one_line(error)
    if model.digest == base.digest:
        return state.bad, ()
    line = f"{model.name}: refused: {reason}; {base.path} answers again"
    if isinstance(error, UntriedError):
        return state.bad, (line,)
    return state.refusing(BadModel(model.digest, model.name, reason)).bad, (line,)


def _after_crash(store: ModelStore) -> tuple[Settled | None, tuple[str, ...]]:
    """Return the last state without a trial, and a line where a model ended the process."""
    state = store.read()
    if not isinstance(state, OnTrial):
        return state, ()
    failed = state.failed(CRASHED)
    line = f"{state.in_use.name}: {CRASHED}; {state.before.name} answers again"
    return failed, (line,)


def _model_of(content: ModelContent, plan: UpdatePlan) -> VerifiedModel:
    """Return the record of a file that passed verify."""
    serial = None if plan.trust is None else plan.trust.check(content).serial
    changed = content.path.stat().st_mtime_ns
    machine = machine_of(plan.engine)
    return VerifiedModel(
        content.digest, content.format, str(content.path), serial, changed, machine
    )


def _opened(model: VerifiedModel, store: ModelStore, plan: UpdatePlan) -> Classifier:
    """Open a copy; verify it first where the software has changed."""
    content = store.get(model, plan.trust)
    if model.machine != machine_of(plan.engine):
        say(f"{model.name}: verifying it with the new software")
        verify_apart(store.put(content), plan.engine, nice=0)
    with quiet():
        return Classifier.of(content, plan.engine)


def _with_base(
    content: ModelContent, store: ModelStore, plan: UpdatePlan, bad: tuple[BadModel, ...]
) -> tuple[Settled, Classifier]:
    """Verify and open the artefact of the command line."""
    if not content.sealed:
        raise ArtefactError(f"{content.path}: --updates needs a sealed artefact (`kedge seal`)")
    try:
        verify_apart(_copied(content, store), plan.engine, nice=0)
    except RefusedUpdateError as refused:
        raise ArtefactError(f"{content.path}: {refused}; give an artefact that passes") from None
    with quiet():
        model = Classifier.of(content, plan.engine)
    settled = Settled(content.digest, _model_of(content, plan), bad)
    _noted(settled, store)
    return settled, model


def _noted(state: Settled, store: ModelStore) -> None:
    """Write the state. On a full disk the old one stays, from which the next process begins."""
    try:
        store.write(state)
    except UsageError as error:
        say(f"updates wait: {one_line(error)}")


def _copied(content: ModelContent, store: ModelStore) -> Path:
    """Return a copy, or on a full disk the file itself, if it is still the one that was read."""
    try:
        return store.put(content)
    except UsageError as error:
        say(f"{content.path}: verified where it lies: {one_line(error)}")
    if read_content(content.path).digest != content.digest:
        raise ArtefactError(f"{content.path}: it changed while it was read; start again")
    return content.path
