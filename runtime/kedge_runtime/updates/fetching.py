"""Put the newest artefact of a folder or an address into a watched folder, once it is verified."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import ArtefactError, KedgeError, SignatureError, UsageError
from kedge_runtime.files import publish, staged, synced, unwritable
from kedge_runtime.updates.download import SCHEME, download, name_in, tls_context
from kedge_runtime.updates.inbox import UpdateFile, files_in, update_of
from kedge_runtime.updates.state import UpdateState, read_state
from kedge_runtime.updates.verifying import verify_apart

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust


@dataclass(frozen=True)
class FetchRequest:
    """What to fetch. `source`: a folder, a file or an https address; `updates`: the watched folder.

    `state`: the folder where `kedge watch` keeps which model is in use. `authorities`: PEM
    certificates instead of the system's.
    """

    source: str
    updates: Path
    state: Path
    trust: "Trust | None"
    engine: EngineOptions
    authorities: Path | None = None


@dataclass(frozen=True)
class Fetched:
    """A verified file in the watched folder; `new`: whether it was put there now."""

    path: Path
    serial: int | None
    new: bool


def fetch(request: FetchRequest) -> Fetched:
    """Fetch, check and verify an artefact; then it appears in the watched folder, whole.

    Raises UsageError, ArtefactError, SignatureError, and RefusedUpdateError where it fails verify.
    """
    state = read_state(request.state)
    source = _source(request)
    final = request.updates / Path(source).name if source else _address_name(request)
    try:
        with staged(final) as temporary:
            _write(request, source, temporary)
            content = replace(read_content(temporary), path=Path(source or final.name))
            fetched = _checked(content, final, request, state)
            if fetched.new:
                verify_apart(temporary, request.engine)
                publish(temporary, final)
            return fetched
    except OSError as error:
        raise UsageError(f"{request.updates}: {unwritable(error)}") from None


def _source(request: FetchRequest) -> str:
    """Return the path of a local source, a folder's newest artefact; "" for an address."""
    if request.source.startswith(SCHEME):
        return ""
    path = Path(request.source)
    if not path.is_dir():
        return str(path)
    return str(_newest(path, request.trust).path)


def _newest(folder: Path, trust: "Trust | None") -> UpdateFile:
    """Return the newest artefact with the required signature. Raises the first reason for none."""
    found, reasons = [], list[KedgeError]()
    for _, path in files_in(folder):
        try:
            found.append(update_of(path, trust))
        except KedgeError as error:
            reasons.append(error)
    if not found:
        raise reasons[0] if reasons else UsageError(f"{folder}: no .tflite or .onnx file there")
    return max(found, key=lambda each: (each.serial or 0, each.changed))


def _address_name(request: FetchRequest) -> Path:
    if request.trust is None:
        raise UsageError(f"{SCHEME}...: needs --key; a file from a network must be signed")
    return request.updates / name_in(request.source)


def _write(request: FetchRequest, source: str, temporary: Path) -> None:
    """Write the source to a new file, and sync it."""
    data = read_content(Path(source), trust=request.trust).data if source else b""
    with synced(temporary) as file:
        if source:
            file.write(data)
        else:
            download(request.source, file, tls_context(request.authorities))


def _checked(
    content: ModelContent, final: Path, request: FetchRequest, state: UpdateState | None
) -> Fetched:
    """Check signature, digest and serial number against the model in use."""
    serial = None if request.trust is None else request.trust.check(content).serial
    if not content.sealed:
        raise ArtefactError(f"{content.path}: damaged, or without a seal")
    present = final.is_file() and read_content(final).data == content.data
    if present or (state is not None and content.digest == state.in_use.digest):
        return Fetched(final, serial, new=False)
    if state is not None:
        _check_state(content, serial, state)
    return Fetched(final, serial, new=True)


def _check_state(content: ModelContent, serial: int | None, state: UpdateState) -> None:
    """Refuse a roll-back, and what went bad here before."""
    used = state.in_use.serial
    if serial is not None and used is not None and serial <= used:
        raise SignatureError(
            f"{content.path}: serial number {serial}, and {used} is in use; "
            "sign it with a higher one"
        )
    if bad := next((each for each in state.bad if each.digest == content.digest), None):
        raise ArtefactError(f"{content.path}: was refused here before: {bad.reason}")
