"""Where the bytes of a file are: weights, the graph around them, and what kedge sealed into it."""

import io
import zipfile

from kedge_runtime.artefact import CONTRACT, GOLDEN, LABELS
from kedge_runtime.containers import DIGEST_BYTES
from kedge_runtime.containers.onnx import KEY, METADATA_PROPS
from kedge_runtime.content import ModelContent
from kedge_runtime.inspect import readable
from kedge_runtime.inspect.network import Network
from kedge_runtime.inspect.summary import weights
from kedge_runtime.protobuf import parts

# What is sealed into a file -> what it is called here.
MEMBERS = {CONTRACT: "contract", GOLDEN: "golden", "kedge/digest": "digest"} | dict.fromkeys(
    LABELS.values(), "labels"
)


def sizes(content: ModelContent, network: Network) -> dict[str, int]:
    """Return the bytes of each part of a file; together they are all of it.

    `graph` is everything that no other part claims. Raises ArtefactError for broken metadata.
    """
    with readable(content.path):
        found = {"weights": weights(network), **_MEMBER_SIZES[network.form](content.data)}
    return {"graph": len(content.data) - sum(found.values()), **found}


def model_end(model: bytes) -> int:
    """Return where the archive behind a .tflite model begins, or their end without one."""
    members, _ = _archive(model)
    return min((info.header_offset for info in members), default=len(model))


def _archive(model: bytes) -> tuple[list[zipfile.ZipInfo], bytes]:
    """Return the members of the archive behind a model and its comment, or nothing."""
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            return archive.infolist(), archive.comment
    except (zipfile.BadZipFile, ValueError, OSError):
        return [], b""


def _tflite_members(model: bytes) -> dict[str, int]:
    members, comment = _archive(model)
    digest = {"digest": len(comment)} if len(comment) == DIGEST_BYTES else {}
    return {
        MEMBERS.get(each.filename, each.filename): each.compress_size for each in members
    } | digest


def _onnx_members(model: bytes) -> dict[str, int]:
    found = {}
    for place in parts(model, METADATA_PROPS):
        # Protocol Buffers leave an empty key out.
        at = next(parts(model, KEY, place), slice(0, 0))
        key = model[at].decode(errors="replace") or "(no key)"
        found[MEMBERS.get(key, key)] = place.stop - place.start
    return found


_MEMBER_SIZES = {"tflite": _tflite_members, "onnx": _onnx_members}
