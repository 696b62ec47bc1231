"""Change one or two things in a .tflite file so that it stays a valid FlatBuffer.

LiteRT verifies the FlatBuffer itself; what the fields say is believed by its kernels.
"""

import random
from collections.abc import Callable
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema

INTEGERS = (-(2**31), -1000, -2, -1, 0, 1, 2, 3, 4, 5, 7, 8, 16, 63, 255, 4096, 65536, 2**31 - 1)
FLOATS = (0.0, -1.0, 1e-38, 1e-9, 0.004, 1.0, 1e9, 1e38, float("inf"), float("-inf"), float("nan"))
SIZES = (0, 1, 3, 8, 64, 4096, 1 << 20)

Pick = random.Random


def mutate(content: bytes, pick: Pick) -> bytes:
    """Return a file with one to three changes."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    for _ in range(pick.choice((1, 1, 1, 2, 2, 3))):
        kinds, weights = zip(*MUTATIONS.items(), strict=True)
        pick.choices(kinds, weights)[0](model, pick)
    return packed(model)


def packed(model: Any) -> bytes:
    """Return the bytes of a ModelT."""
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _graph(model: Any, pick: Pick) -> Any:
    return pick.choice(model.subgraphs)


def _some(items: Any, pick: Pick) -> Any:
    return pick.choice(items) if items is not None and len(items) else None


def integer(pick: Pick, old: int = 0) -> int:
    """Return a number that is often at the edge of something."""
    near = (old + 1, old - 1, -old, old * 2, old // 2)
    return int(np.clip(pick.choice((*INTEGERS, *near, *near)), -(2**31), 2**31 - 1))


def listed(values: Any, pick: Pick, change: Callable[[Pick, Any], Any]) -> list[Any] | None:
    """Return a list with an item changed, added, taken away or swapped, or None."""
    found = [] if values is None else [value.item() for value in np.asarray(values)]
    way = pick.randrange(10)
    if way == 0 or not found:
        found.insert(pick.randrange(len(found) + 1), change(pick, 0))
    elif way == 1:
        del found[pick.randrange(len(found))]
    elif way == 2 and pick.random() < 0.3:
        return None
    elif way == 3:
        pick.shuffle(found)
    else:
        at = pick.randrange(len(found))
        found[at] = change(pick, found[at])
    return found


def operands(model: Any, pick: Pick) -> None:
    """Read or write other tensors."""
    graph = _graph(model, pick)
    operator = _some(graph.operators, pick)
    if operator is None:
        return

    def other(pick: Pick, _: int) -> int:
        count = len(graph.tensors)
        return pick.choice((-1, -1, pick.randrange(count), pick.randrange(count), integer(pick)))

    name = pick.choice(("inputs", "inputs", "inputs", "outputs", "intermediates"))
    setattr(operator, name, listed(getattr(operator, name), pick, other))


def fields(thing: Any, pick: Pick) -> None:
    """Change one field of a record, by its type."""
    name = pick.choice(sorted(vars(thing)))
    old = getattr(thing, name)
    if isinstance(old, bool):
        setattr(thing, name, not old)
    elif isinstance(old, int):
        wide = -128 <= old <= 127 and pick.random() < 0.5
        setattr(thing, name, pick.randrange(-2, 20) if wide else integer(pick, old))
    elif isinstance(old, float):
        setattr(thing, name, pick.choice(FLOATS))
    elif isinstance(old, np.ndarray | list) and len(old) and isinstance(old[0], int | np.integer):
        setattr(thing, name, listed(old, pick, integer))
    elif isinstance(old, np.ndarray | list) and len(old) and isinstance(old[0], float):
        setattr(thing, name, listed(old, pick, lambda pick, _: pick.choice(FLOATS)))


def options(model: Any, pick: Pick) -> None:
    """Change, lose or exchange an operator's options."""
    operator = _some(_graph(model, pick).operators, pick)
    if operator is None:
        return
    if pick.random() < 0.1 or operator.builtinOptions is None:
        other = _some(_graph(model, pick).operators, pick)
        given = pick.choice((None, other))
        operator.builtinOptions = given and given.builtinOptions
        operator.builtinOptionsType = given.builtinOptionsType if given else 0
    else:
        fields(operator.builtinOptions, pick)


def shape(model: Any, pick: Pick) -> None:
    """State another shape, often with a constant's bytes to match."""
    tensor = _some(_graph(model, pick).tensors, pick)
    name = pick.choice(("shape",) * 6 + ("shapeSignature",))
    setattr(tensor, name, listed(getattr(tensor, name), pick, integer))
    if name == "shape" and pick.random() < 0.7:
        _fit(model, tensor)


def _fit(model: Any, tensor: Any) -> None:
    """Give a constant as many bytes as its shape and type ask for."""
    buffer = model.buffers[tensor.buffer % len(model.buffers)]
    sides = [] if tensor.shape is None else [int(side) for side in tensor.shape]
    size = 4 if tensor.type in (0, 2) else 8 if tensor.type == 4 else 2 if tensor.type == 7 else 1
    count = size
    for side in sides:
        count *= side
    if buffer.data is not None and len(buffer.data) and 0 <= count < 1 << 20:
        buffer.data = np.resize(np.asarray(buffer.data, np.uint8), count)


def dtype(model: Any, pick: Pick) -> None:
    """State another type, or that a tensor is a variable."""
    tensor = _some(_graph(model, pick).tensors, pick)
    if pick.random() < 0.1:
        tensor.isVariable = not tensor.isVariable
        return
    tensor.type = pick.choice((0, 0, 1, 2, 3, 4, 6, 7, 9, 9, 10, 17, pick.randrange(-1, 30)))
    if pick.random() < 0.7:
        _fit(model, tensor)


def numbers(model: Any, pick: Pick) -> None:
    """Change a constant's bytes: axes, paddings and sizes are constants too."""
    graph = _graph(model, pick)
    held = [t for t in graph.tensors if t.buffer and t.buffer < len(model.buffers)]
    small = [t for t in held if t.type in (2, 4)]
    tensor = _some(small if small and pick.random() < 0.8 else held, pick)
    data = None if tensor is None else model.buffers[tensor.buffer].data
    if data is None or not len(data):
        return
    kind = np.int64 if tensor.type == 4 else np.int32
    values = np.frombuffer(bytes(bytearray(data)), np.uint8).copy()
    whole = values[: len(values) // np.dtype(kind).itemsize * np.dtype(kind).itemsize].view(kind)
    if len(whole):
        at = pick.randrange(len(whole))
        whole[at] = integer(pick, int(whole[at])) if tensor.type in (2, 4) else pick.getrandbits(30)
    model.buffers[tensor.buffer].data = values


def buffers(model: Any, pick: Pick) -> None:
    """Give a tensor another buffer, or a buffer another length or place."""
    way = pick.randrange(4)
    buffer = pick.choice(model.buffers)
    if way == 0:
        tensor = _some(_graph(model, pick).tensors, pick)
        tensor.buffer = pick.choice((0, pick.randrange(len(model.buffers)), 10**6))
    elif way == 1:
        buffer.data = np.zeros(pick.choice(SIZES[:5]), np.uint8)
    elif way == 2 and pick.random() < 0.3:
        buffer.data = None
    elif pick.random() < 0.3:
        buffer.offset, buffer.size = pick.choice(SIZES), pick.choice((*SIZES, 2**40))


def quantisation(model: Any, pick: Pick) -> None:
    """Change scales, zero points and the quantised dimension."""
    tensor = _some(_graph(model, pick).tensors, pick)
    if tensor.quantization is None or pick.random() < 0.1:
        other = _some(_graph(model, pick).tensors, pick)
        tensor.quantization = pick.choice((None, other.quantization))
    else:
        fields(tensor.quantization, pick)


def codes(model: Any, pick: Pick) -> None:
    """Let an operator be of another kind or version."""
    if pick.random() < 0.5:
        operator = _some(_graph(model, pick).operators, pick)
        if operator is not None:
            operator.opcodeIndex = pick.choice((pick.randrange(len(model.operatorCodes)), 99))
        return
    code = pick.choice(model.operatorCodes)
    if pick.random() < 0.3:
        code.version = integer(pick, code.version)
    else:
        code.builtinCode = pick.randrange(-1, 210)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)


def order(model: Any, pick: Pick) -> None:
    """Swap, repeat or lose an operator."""
    found = _graph(model, pick).operators
    if not found:
        return
    i, j = pick.randrange(len(found)), pick.randrange(len(found))
    way = pick.randrange(3)
    if way == 0:
        found[i], found[j] = found[j], found[i]
    elif way == 1:
        found.insert(i, found[j])
    else:
        del found[i]


def ends(model: Any, pick: Pick) -> None:
    """Take in or give other tensors, or change a subgraph or a signature."""
    graph = _graph(model, pick)
    way = pick.randrange(5)
    if way == 0 and model.signatureDefs:
        signature = pick.choice(model.signatureDefs)
        fields(
            pick.choice([signature, *(signature.inputs or []), *(signature.outputs or [])]), pick
        )
    elif way == 1 and len(model.subgraphs) > 1:
        pick.shuffle(model.subgraphs)
    else:
        name = pick.choice(("inputs", "outputs"))
        limit = len(graph.tensors)
        changed = listed(
            getattr(graph, name), pick, lambda pick, _: pick.choice((-1, pick.randrange(limit)))
        )
        setattr(graph, name, changed)


def sparsity(model: Any, pick: Pick) -> None:
    """Call a constant sparse."""
    tensor = _some(_graph(model, pick).tensors, pick)
    found = schema.SparsityParametersT()
    found.traversalOrder = [pick.randrange(-1, 5) for _ in range(pick.randrange(4))]
    found.blockMap = [pick.randrange(-1, 5) for _ in range(pick.randrange(3))]
    found.dimMetadata = []
    for _ in range(pick.randrange(5)):
        metadata = schema.DimensionMetadataT()
        metadata.denseSize = integer(pick)
        found.dimMetadata.append(metadata)
    tensor.sparsity = found


# How often each of them is made.
MUTATIONS: dict[Callable[[Any, Pick], None], int] = {
    operands: 20,
    options: 15,
    shape: 20,
    dtype: 10,
    numbers: 15,
    buffers: 5,
    quantisation: 10,
    codes: 6,
    order: 4,
    ends: 3,
    sparsity: 1,
}
