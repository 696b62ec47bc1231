"""Check a model's bytes before any engine reads them: engines crash on invalid ones.

The check also returns the cost of a run, which sets the time limit of a worker process. Sealed
files that passed are noted by digest and not checked again.
"""

import hashlib
import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.errors import ArtefactError, about
from kedge_runtime.files import Access, others_access
from kedge_runtime.modelfile import onnx_schema as schema
from kedge_runtime.modelfile.check.tflite_shapes import Cost, UnsoundError
from kedge_runtime.modelfile.encodings import fields, parts
from kedge_runtime.modelfile.reading import FAULTS

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
    return hashlib.sha256(repr(sources).encode()).hexdigest()[:16]


# Modules with `check(content) -> Cost`, each imported for its format only.
CHECKS = {format: f"{__package__}.{format}" for format in ("tflite", "onnx")}


def check_model(content: ModelContent) -> Cost:
    """Return the cost of a run of a model.

    Raises ArtefactError for a model that may crash an engine: missing operands, contradicting
    shapes, memory or work beyond any network for images, weights in another file.
    """
    with about(content.path):
        if content.format == "onnx" and _is_external(content.data):
            raise ArtefactError(
                "keeps its weights in another file, which no digest covers: join them with python "
                f"-c \"import onnx; onnx.save(onnx.load('{content.path}'), 'whole.onnx')\""
            )
        return _check(content)


def _is_external(content: bytes) -> bool:
    try:
        return any(
            number == schema.DATA_LOCATION and value == schema.EXTERNAL
            for graph in parts(content, schema.GRAPH)
            for tensor in parts(content, schema.INITIALISER, graph)
            for number, value in fields(content, tensor)
        )
    except (ValueError, IndexError, KeyError) as error:
        raise ArtefactError(f"no readable .onnx model ({error}); copy it again") from None


def _check(content: ModelContent) -> Cost:
    try:
        cost: Cost = import_module(CHECKS[content.format]).check(content.data)
    except UnsoundError as error:
        reason = f"refused, an invalid .{content.format} model ({error})"
    except FAULTS as error:
        reason = f"no readable .{content.format} model ({error})"
    else:
        return cost
    raise ArtefactError(f"{reason}; copy it again, or convert again")
