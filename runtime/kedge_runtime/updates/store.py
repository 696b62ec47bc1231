"""Keep copies of models under their digest, where nobody replaces them while they are used."""

import fcntl
import os
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.errors import ArtefactError, UsageError, reason_of
from kedge_runtime.files import sweep, unwritable, write_whole
from kedge_runtime.output import say
from kedge_runtime.updates import state as states
from kedge_runtime.updates.state import OnTrial, UpdateState, VerifiedModel

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust


class ModelStore:
    """A folder of copies with its state; one process has it at a time."""

    def __init__(self, folder: Path) -> None:
        """Create the folder, and lock it. Raises UsageError."""
        self.folder, self._copies = folder, folder / "models"
        self._written: UpdateState | None = None
        try:
            self._copies.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(folder / "updates.lock")
        except OSError as error:
            raise UsageError(f"--state: {folder}: {unwritable(error)}") from None
        sweep(self._copies)
        sweep(folder)

    def close(self) -> None:
        """Let another process have the folder."""
        self._lock.close()

    def read(self) -> UpdateState | None:
        """Return the state; None for none, and for a damaged one, which is said.

        Copies that it doesn't name are removed: they may be what fills the disk.
        """
        try:
            self._written = states.read_state(self.folder)
        except ArtefactError as error:
            say(f"{error}; updates begin anew")
            return None
        if self._written is not None:
            self._prune(self._written)
        return self._written

    def write(self, state: UpdateState) -> None:
        """Write the state unless it is written, and remove copies that it doesn't name.

        Raises UsageError where the disk refuses it.
        """
        if state != self._written:
            states.write_state(self.folder, state)
            self._written = state
            self._prune(state)

    def put(self, content: ModelContent) -> Path:
        """Copy a sealed model; return the copy. Raises UsageError."""
        path = self._path(content.digest, content.format)
        if not (path.exists() and _digest(path) == content.digest):
            write_whole(path, content.data)
        return path

    def get(self, model: VerifiedModel, trust: "Trust | None") -> ModelContent:
        """Return a model's bytes, under its own name.

        Raises ArtefactError where the copy is gone or damaged, SignatureError.
        """
        content = read_content(self._path(model.digest, model.format), trust=trust)
        if not content.sealed or content.digest != model.digest:
            raise ArtefactError(f"{model.name}: its copy in {self._copies} is damaged")
        return replace(content, path=Path(model.name))

    def _path(self, digest: str, format: str) -> Path:
        return self._copies / f"{digest.removeprefix('sha256:')}.{format}"

    def _prune(self, state: UpdateState) -> None:
        kept = [state.in_use, *([state.before] if isinstance(state, OnTrial) else [])]
        names = {self._path(each.digest, each.format).name for each in kept}
        for path in self._copies.iterdir():
            if path.name not in names:
                path.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    content = read_content(path)
    return content.digest if content.sealed else ""


def _locked(path: Path) -> IO[bytes]:
    """Return a file that no other process has locked. Raises UsageError, OSError."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UsageError(
            f"--updates: another kedge uses {path.parent} ({reason_of(error)}); "
            "give each a folder of its own with --state"
        ) from None
    return file
