"""Note sealed files that passed the check by their digest, so that it is paid for once.

Whoever opens a noted file needs this module alone: the check and numpy stay unloaded.
"""

import os
from contextlib import suppress
from pathlib import Path

from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.files import Access, others_access
from kedge_runtime.sha256 import sha256

# With more notes all are removed. A device has a few artefacts, a CI makes thousands.
MOST = 1000


def is_known(content: ModelContent) -> bool:
    """Return whether the same bytes of a sealed file passed this version of the check before."""
    folder = _folder()
    if folder is None or not content.sealed:
        return False
    try:
        os.lstat(folder / _name(content))
        return others_access(folder) is Access.NONE
    except OSError:
        return False


def remember(content: ModelContent) -> None:
    """Note that a sealed file passed. Where no note can be written, the next run checks again."""
    folder = _folder()
    if folder is None or not content.sealed:
        return
    with suppress(OSError):
        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, exist_ok=True)
        notes = list(folder.iterdir())
        for path in notes if len(notes) >= MOST else ():
            path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(folder / _name(content), flags, 0o600))


def _folder() -> Path | None:
    """Return the user's folder for notes (XDG Base Directory Specification), None without one."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111
    return Path(home, "kedge", "checked") if os.path.isabs(home) else None  # noqa: PTH117


def _name(content: ModelContent) -> str:
    return f"{content.digest.removeprefix('sha256:')}-{_rules()}"


def _rules() -> str:
    """Return a name for this version of the check: names, sizes and times of its source files."""
    here = Path(__file__).parent
    entries = [each for folder in (here, here.parent) for each in os.scandir(folder)]
    stats = {each.path: each.stat() for each in entries if each.name.endswith(".py")}
    sources = sorted((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats.items())
    return sha256(repr(sources).encode()).hexdigest()[:16]
