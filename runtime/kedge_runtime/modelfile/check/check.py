"""Check a model's bytes before any engine sees them: engines trust them, and crash on false ones.

The check also states what a run costs, which bounds a run in another process. Sealed files that
passed are noted by digest and not checked again.
"""

import hashlib
import os
import stat
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.errors import ArtefactError
from kedge_runtime.modelfile.check.tflite_shapes import Cost, UnsoundError
from kedge_runtime.modelfile.encodings import fields, parts
from kedge_runtime.modelfile.onnx import GRAPH, INITIALISER
from kedge_runtime.modelfile.reading import FAULTS

# What is left when there are more: nothing. A device has a few artefacts, a CI makes thousands.
MOST = 1000


def is_known(content: ModelContent) -> bool:
    """Whether the very bytes of a sealed file passed the check before, by these rules."""
    folder = _folder()
    if folder is None or not content.sealed:
        return False
    try:
        status = os.lstat(folder)
        os.lstat(folder / _name(content))
    except OSError:
        return False
    mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return mine and not status.st_mode & 0o077


def remember(content: ModelContent) -> None:
    """Note that a sealed file passed. Where nothing can be written, the check is paid again."""
    folder = _folder()
    if folder is None or not content.sealed:
        return
    with suppress(OSError):
        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, exist_ok=True)
        known = list(folder.iterdir())
        for path in known if len(known) >= MOST else ():
            path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(folder / _name(content), flags, 0o600))


def _folder() -> Path | None:
    """Return the user's own place for it (XDG Base Directory Specification), None without one."""
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
    return hashlib.sha256(repr(sources).encode()).hexdigest()[:16]


DATA_LOCATION, EXTERNAL = 14, 1  # TensorProto


def refuse_external(model: ModelContent) -> None:
    """Raise ArtefactError for a model that isn't whole in its file, or is no ONNX at all."""
    name = str(model.path)
    if model.format == "onnx" and _external(model.data, name):
        raise ArtefactError(
            f"{name}: keeps its weights in another file, which no digest covers: join them with "
            f"python -c \"import onnx; onnx.save(onnx.load('{name}'), 'whole.onnx')\""
        )


def _external(content: bytes, name: str) -> bool:
    try:
        return any(
            number == DATA_LOCATION and value == EXTERNAL
            for graph in parts(content, GRAPH)
            for tensor in parts(content, INITIALISER, graph)
            for number, value in fields(content, tensor)
        )
    except (ValueError, IndexError, KeyError) as error:
        raise ArtefactError(f"{name}: no readable .onnx model ({error}); copy it again") from None


# Twins with one verb, `check(content) -> Cost`; each is imported only for its format.
CHECKS = {form: f"{__package__}.{form}" for form in ("tflite", "onnx")}


def check_model(content: ModelContent) -> Cost:
    """Return what a run of a model takes.

    Raises ArtefactError, one line, for a model that an engine may not survive: operands that aren't
    there, shapes that contradict each other, memory or work beyond any network of images.
    """
    refuse_external(content)
    try:
        cost: Cost = import_module(CHECKS[content.format]).check(content.data)
    except UnsoundError as error:
        reason = f"refused, an invalid .{content.format} model ({error})"
    except FAULTS as error:
        reason = f"no readable .{content.format} model ({error})"
    else:
        return cost
    raise ArtefactError(f"{content.path}: {reason}; copy it again, or convert again")
