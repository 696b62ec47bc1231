"""Write a conversion's files: checked after they are written and before they are renamed.

A file under its final name is always whole and has passed. Files are written, synced and renamed as
all files are (`kedge_runtime.files`); the errors here name `--out`.
"""

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from kedge_runtime import files
from kedge_runtime.artefact.content import REJECTED
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.errors import KedgeError, UsageError
from kedge_runtime.files import staged


def write(path: Path, *parts: bytes | memoryview) -> None:
    """Write and sync a file. Raises UsageError when the disk or the folder refuses it."""
    try:
        with files.synced(path) as file:
            file.writelines(parts)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _unwritable(path.parent, error) from None


def publish(temporary: Path, final: Path) -> None:
    """Give a synced file its name for good. Raises UsageError when the folder refuses it."""
    try:
        files.publish(temporary, final)
    except OSError as error:
        raise _unwritable(final.parent, error) from None


def refuse_other_device(paths: Iterable[Path], device: str) -> None:
    """Raise UsageError if one of the files was made for another device than `device`, "" for none.

    File names don't tell the device, so one file would replace the other.
    """
    for path in paths:
        owner = _made_for(path)
        if owner not in (None, device):
            raise UsageError(
                f"--out: {path} was made {_for(owner)}, one made {_for(device)} would replace it; "
                "give each device a folder of its own"
            )


def rejected(final: Path) -> Path:
    """Return the path of a file that missed its limits."""
    return final.with_name(final.name + REJECTED)


def forget(final: Path, device: str) -> None:
    """Remove the file that an earlier run rejected, unless it was made for another device."""
    path = rejected(final)
    if _made_for(path) in (None, device):
        path.unlink(missing_ok=True)


def _made_for(path: Path) -> str | None:
    """Return the name of an artefact's device; None without a file or for no artefact."""
    format = Path(path.name.removesuffix(REJECTED)).suffix.lstrip(".")
    try:
        return read_artefact(path, format).contract.provenance.device
    except KedgeError:
        return None


def _for(device: str | None) -> str:
    return f"for {device}" if device else "without --device"


@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Make the output folder, prove it writable before hours are spent, and run the block.

    Folders that it made and that stay empty are removed again. Raises UsageError.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        _prove_writable(folder)
        yield
    finally:
        with contextlib.suppress(OSError):
            for each in missing:
                each.rmdir()


def _prove_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with staged(folder / "probe") as probe, files.synced(probe):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from None


def remove_files_of(folder: Path, process: int) -> None:
    """Remove the hidden files that a dead process left."""
    for path in folder.glob(f".kedge-{process}-*"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def room_for_temporaries(needed: int) -> Iterator[None]:
    """Run a block that writes about `needed` bytes of temporary files.

    Raises UsageError when they find no room: before the block, because TensorFlow takes a full disk
    for something else, or within it.
    """
    free = shutil.disk_usage(files.users_folder()).free
    if free < needed:
        raise files.no_room(None, f"has {free / 1e6:.1f} MB left, {needed / 1e6:.1f} MB are needed")
    with files.room():
        yield


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"--out: {folder}: {files.unwritable(error)}; choose another folder")
