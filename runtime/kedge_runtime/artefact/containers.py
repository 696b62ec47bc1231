"""How a file carries more than its model: one module per format, twins with the same verbs.

`read(content) -> dict[str, bytes]`, `append(model, members) -> bytes`, and `split(content)`, which
takes apart what was appended. Both formats end in the same 71 bytes, `sha256:` and the hex digest
of every byte before them, so one rule finds any change in any sealed file, and
`head -c -71 FILE | sha256sum` checks it by hand. `with_room(content, old, new)` makes room before
the digest for a signature.
"""

from types import ModuleType

from kedge_runtime.artefact import onnx, tflite
from kedge_runtime.artefact.content import DIGEST_BYTES, digest
from kedge_runtime.errors import ArtefactError

FORMATS: dict[str, ModuleType] = {"tflite": tflite, "onnx": onnx}


def append(form: str, model: bytes, members: dict[str, bytes]) -> bytes:
    """Return `model` with `members` and, as its last 71 bytes, the digest of all before them."""
    content: bytes = FORMATS[form].append(model, members, room=DIGEST_BYTES)
    body = content[:-DIGEST_BYTES]
    return body + digest(body)


def with_room(form: str, content: bytes, old: int, new: int) -> bytes:
    """Return a sealed file with `new` zero bytes in the place of the last `old` ones.

    Raises ValueError when the file wasn't sealed with so many bytes of room.
    """
    changed: bytes = FORMATS[form].with_room(content, old, new)
    return changed


def split(form: str, content: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Return the model alone, and the members that other programs put behind it.

    A seal is taken off. Raises ArtefactError for an archive that is damaged or far too large, and
    for bytes that are no model.
    """
    try:
        found: tuple[bytes, dict[str, bytes]] = FORMATS[form].split(content)
    except (KeyError, IndexError, ValueError) as error:
        raise ArtefactError(f"no readable .{form} model ({error}); copy it again") from None
    return found
