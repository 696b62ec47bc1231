"""Hold which model is in use, which one is on trial, and which ones went bad: one JSON file.

It is written whole, and ends in a digest. What it says is true before the device acts on it: a
process that is killed at any moment leaves a state from which the next one can begin.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kedge_runtime.artefact.content import DIGEST_BYTES, digest, open_plain
from kedge_runtime.errors import ArtefactError, ContractError, reason_of
from kedge_runtime.files import write_whole
from kedge_runtime.records import decode, encode

NAME = "updates.json"
MAX_BYTES = 1 << 20
MOST_BAD = 256  # models; the oldest are forgotten


@dataclass(frozen=True)
class VerifiedModel:
    """A model that passed `kedge verify` here.

    `name`: its path, for messages. `serial`: of its signature. `changed`: the file's time in ns
    since 1970. `machine`: the software that it was verified with (`verifying.py`).
    """

    digest: str
    format: str
    name: str
    serial: int | None
    changed: int
    machine: str


@dataclass(frozen=True)
class BadModel:
    """A model that is never tried again, and why."""

    digest: str
    name: str
    reason: str


@dataclass(frozen=True)
class Settled:
    """A model is in use. `base`: the digest of the artefact on the command line."""

    base: str
    in_use: VerifiedModel
    bad: tuple[BadModel, ...] = ()

    def trying(self, model: VerifiedModel) -> "OnTrial":
        """Return the state with a new model on trial."""
        return OnTrial(self.base, model, self.in_use, self.bad)

    def refusing(self, model: BadModel) -> "Settled":
        """Return the state with one more bad model."""
        return replace(self, bad=(*self.bad, model)[-MOST_BAD:])


@dataclass(frozen=True)
class OnTrial:
    """A new model answers for its first frames; `before` is opened again if it fails.

    A process that begins with this state knows that the last one was ended by the new model.
    """

    base: str
    in_use: VerifiedModel
    before: VerifiedModel
    bad: tuple[BadModel, ...] = ()

    def passed(self) -> Settled:
        """Return the state with the new model."""
        return Settled(self.base, self.in_use, self.bad)

    def interrupted(self) -> Settled:
        """Return the state with the old model, which lets the new one be tried again."""
        return Settled(self.base, self.before, self.bad)

    def failed(self, reason: str) -> Settled:
        """Return the state with the old model, and the new one as bad."""
        model = BadModel(self.in_use.digest, self.in_use.name, reason)
        return self.interrupted().refusing(model)


UpdateState = Settled | OnTrial
_STATES: dict[str, type[Any]] = {"settled": Settled, "on-trial": OnTrial}


def to_bytes(state: UpdateState) -> bytes:
    """Return a state as JSON, a newline, and the digest of both."""
    name = next(name for name, kind in _STATES.items() if isinstance(state, kind))
    body = json.dumps({"schema": 1, "state": name, "record": encode(state)}, indent=1) + "\n"
    return body.encode() + digest(body.encode())


def from_bytes(content: bytes) -> UpdateState:
    """Read what `to_bytes` wrote. Raises ArtefactError for anything else."""
    body, stated = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if len(content) > MAX_BYTES or digest(body) != stated:
        raise ArtefactError("it is damaged")
    try:
        data = json.loads(body)
        state: UpdateState = decode(_STATES[data["state"]], data["record"], "record")
    except (ValueError, KeyError, TypeError, RecursionError, ContractError):
        raise ArtefactError("it is of another version of kedge") from None
    return state


def read_state(folder: Path) -> UpdateState | None:
    """Return the state in a folder, None where there is none. Raises ArtefactError."""
    path = folder / NAME
    try:
        with open_plain(path) as file:
            return from_bytes(file.read(MAX_BYTES + 1))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArtefactError(f"{path}: {reason_of(error)}") from None
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error}") from None


def write_state(folder: Path, state: UpdateState) -> None:
    """Write a state whole or not at all; it is on the disk then. Raises UsageError."""
    write_whole(folder / NAME, to_bytes(state))
