"""Say why a file is no model of its format: what it is instead, and what to do."""

import re

from kedge_runtime.frozen import dataclass

LOOKED_AT = 64  # bytes from the beginning that tell the kind of a file
SHOWN = 8


@dataclass(frozen=True)
class OtherKind:
    """A kind of file that people give for a model.

    `start`: how its bytes begin, a regular expression. `format`: of a model, whose suffix is wrong.
    """

    start: bytes
    what: str
    remedy: str
    format: str = ""


OTHER_KINDS = (
    OtherKind(rb"\Z", "an empty file", "copy it again"),
    OtherKind(
        rb"PK\x03\x04|PK\x05\x06",
        "a zip archive",
        "unpack it and give the .{format} file in it; a Keras 3 model is a zip, too, named .keras",
    ),
    OtherKind(rb"\x1f\x8b", "a gzip archive", "unpack it and give the .{format} file in it"),
    OtherKind(
        rb"\x89HDF\r\n\x1a\n",
        "an HDF5 file",
        "if it is a Keras model, rename it to .h5 and run kedge convert",
    ),
    OtherKind(rb".{4}TFL3", "a TFLite model", "rename it to .tflite", "tflite"),
    # ModelProto: ir_version, then the producer, the domain or the graph.
    OtherKind(
        rb"\x08[\x01-\x1f][\x12\x1a\x22\x3a\x42]", "an ONNX model", "rename it to .onnx", "onnx"
    ),
    OtherKind(rb"version https://git-lfs", "a pointer of Git LFS", "fetch the file: git lfs pull"),
    OtherKind(rb"\s*<", "a web page or XML", "download the model itself"),
    OtherKind(rb"\s*[{\[]", "a JSON file", "give the model beside it"),
    OtherKind(
        rb"\x80[\x02-\x05]", "a Python pickle", "export the model with the program that made it"
    ),
    OtherKind(
        rb"\x89PNG|\xff\xd8\xff|GIF8|BM.{4}\0{4}", "an image", "give a model first, then images"
    ),
)


def other_kind(format: str, data: bytes | memoryview) -> str:
    """Return the message on bytes that are a file of another kind than .`format`, "" for others."""
    beginning = bytes(data[:LOOKED_AT])
    for kind in OTHER_KINDS:
        if kind.format != format and re.match(kind.start, beginning, re.DOTALL):
            remedy = kind.remedy.format(format=format)
            return f"no readable .{format} model but {kind.what}: {remedy}"
    return ""


def unreadable(format: str, data: bytes | memoryview, error: Exception) -> str:
    """Return the message on bytes that are no .`format` model; `error`: what reading them raised.

    Only a ValueError has words for people: of other errors the message is a number or a key.
    """
    if kind := other_kind(format, data):
        return kind
    shown = bytes(data[:SHOWN]).hex(" ")
    reason = str(error) if type(error) is ValueError else f"damaged; it begins with {shown}"
    return f"no readable .{format} model ({reason}); copy it again, or convert again"
