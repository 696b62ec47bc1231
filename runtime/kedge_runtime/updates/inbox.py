"""Find the newest artefact of a watched folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kedge_runtime.artefact.content import FORMATS, read_content
from kedge_runtime.errors import ArtefactError, KedgeError, UsageError, reason_of
from kedge_runtime.updates.state import UpdateState, VerifiedModel

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust

MOST = 64  # files of a folder that are read, the newest


@dataclass(frozen=True)
class UpdateFile:
    """A sealed file in the folder; `serial`: of its valid signature. `changed`: ns since 1970."""

    path: Path
    digest: str
    serial: int | None
    changed: int

    def newer(self, other: VerifiedModel) -> bool:
        """Whether it is newer than another model: by serial number, without signatures by time."""
        if self.serial is None:
            return self.changed > other.changed
        return other.serial is None or self.serial > other.serial


@dataclass(frozen=True)
class RefusedFile:
    """A file in the folder that is no update, and why."""

    path: Path
    changed: int
    reason: str


def update_of(path: Path, trust: "Trust | None") -> UpdateFile:
    """Read a file, and check its signature and its digest. Raises ArtefactError, SignatureError."""
    content = read_content(path)
    serial = None if trust is None else trust.check(content).serial
    if not content.sealed:
        raise ArtefactError(f"{path}: damaged, or without a seal; copy it again")
    return UpdateFile(path, content.digest, serial, path.stat().st_mtime_ns)


def files_in(folder: Path) -> list[tuple[int, Path]]:
    """Return the times, in ns, and paths of the newest artefacts in a folder, the newest first.

    Hidden files, such as unfinished ones, are left out. Raises UsageError.
    """
    suffixes = {f".{format}" for format in FORMATS}
    try:
        paths = [p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.name[0] != "."]
        return sorted(((path.stat().st_mtime_ns, path) for path in paths), reverse=True)[:MOST]
    except OSError as error:
        raise UsageError(f"{folder}: {reason_of(error)}") from None


class Inbox:
    """A watched folder, read again only when its files change."""

    def __init__(self, folder: Path, trust: "Trust | None") -> None:
        """Take the folder, and the required signature."""
        self._folder, self._trust = folder, trust
        self._seen: list[tuple[int, Path]] = []
        self._files: list[UpdateFile | RefusedFile] = []
        self._said = set[RefusedFile]()

    def newest(self, state: UpdateState) -> UpdateFile | None:
        """Return the newest update that is newer than the model in use, and not bad.

        A folder that has just changed is left alone until the next call, as a file may be half
        copied. Raises UsageError for a folder that can't be read.
        """
        listing = files_in(self._folder)
        if listing != self._seen:
            self._seen, self._files = listing, []
            return None
        self._files = self._files or [self._read(*each) for each in listing]
        bad = {each.digest for each in state.bad}
        found = [
            each
            for each in self._files
            if isinstance(each, UpdateFile)
            and each.digest not in bad
            and each.digest != state.in_use.digest
            and each.newer(state.in_use)
        ]
        return max(found, key=lambda each: (each.serial or 0, each.changed), default=None)

    def refused(self) -> list[RefusedFile]:
        """Return the files that were refused since the last call."""
        now = {each for each in self._files if isinstance(each, RefusedFile)}
        news, self._said = now - self._said, now if self._files else self._said
        return sorted(news, key=lambda each: each.path)

    def _read(self, changed: int, path: Path) -> UpdateFile | RefusedFile:
        try:
            return update_of(path, self._trust)
        except (KedgeError, OSError) as error:
            return RefusedFile(path, changed, str(error))
