"""TFLite files as objects that can be changed, and back; the schema's own Python classes do it."""

from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.toolkit import require

IDENTIFIER = b"TFL3"  # schema.fbs: file_identifier
FIRST_BYTES = 1 << 20  # room for all but numbers; the builder doubles it if need be


def schema() -> Any:
    """Return the module of the schema's classes and enumerations."""
    return require("ai_edge_litert.schema_py_generated")


def unpack(content: bytes) -> Any:
    """Return the file's ModelT. Its buffers are views of `content`, not copies.

    Also those that lie behind the flatbuffer.
    """
    model = schema().ModelT.InitFromObj(schema().Model.GetRootAs(content, 0))
    for buffer in model.buffers:
        if buffer.offset > 1:  # 1 stands for a buffer without numbers
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
    return model


def pack(model: Any) -> bytes:
    """Return the file of a ModelT, without the numbers that no tensor names any more.

    The same model gives the same bytes.
    """
    used = {each.buffer for graph in model.subgraphs for each in graph.tensors}
    used |= {each.buffer for each in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        buffer.data = buffer.data if index in used else None
    # Room for all of it at once: the builder holds two copies whenever it grows.
    room = FIRST_BYTES + sum(len(each.data) for each in model.buffers if each.data is not None)
    builder = _builder(room)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


def _builder(room: int) -> Any:
    """Return a builder that copies the numbers of a buffer once, not three times."""

    class DirectBuilder(require("flatbuffers").Builder):  # type: ignore[misc]  # no stubs
        def CreateNumpyVector(self, x: NDArray[Any]) -> Any:  # noqa: N802  # overrides
            if x.dtype != np.uint8 or not x.flags.c_contiguous:
                return super().CreateNumpyVector(x)
            self.StartVector(1, x.size, 1)
            self.head -= x.size
            with memoryview(self.Bytes) as all_bytes:
                all_bytes[self.head : self.head + x.size] = x.data
            return self.EndVector()

    return DirectBuilder(room)


def share(model: Any) -> Any:
    """Let constants with the same bytes share a buffer, as TensorFlow's converter does; in place.

    The first of equal ones stays.
    """
    kept: dict[bytes, int] = {}
    for index, buffer in enumerate(model.buffers):
        if buffer.data is not None and len(buffer.data):
            kept.setdefault(sha256(buffer.data).digest(), index)
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data):
            tensor.buffer = kept[sha256(data).digest()]
    return model


def operators(model: Any) -> list[tuple[str, Any]]:
    """Return the main graph's operators with their names, as in schema.fbs or `CUSTOM name`."""
    names = [_name(code) for code in model.operatorCodes]
    return [(names[each.opcodeIndex], each) for each in model.subgraphs[0].operators]


def _name(code: Any) -> str:
    # Codes beyond 127 are only in the newer of the two fields.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    names = {value: key for key, value in vars(schema().BuiltinOperator).items()}
    return f"CUSTOM {code.customCode.decode()}" if code.customCode else str(names[number])


def constant(model: Any, tensor: Any) -> NDArray[np.float32] | None:
    """Return the numbers of a float32 tensor, or None for what isn't one or isn't constant."""
    data = model.buffers[tensor.buffer].data
    if tensor.type != schema().TensorType.FLOAT32 or data is None or not len(data):
        return None
    return np.asarray(data).view(np.float32).reshape(shape(tensor))


def shape(tensor: Any) -> tuple[int, ...]:
    """Return a tensor's sizes; a scalar's are left out of the file."""
    return () if tensor.shape is None else tuple(map(int, tensor.shape))
