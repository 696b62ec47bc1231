"""Read TFLite files as a Network."""

from collections.abc import Iterator

from kedge_runtime.modelfile.encodings import Table, root
from kedge_runtime.modelfile.network import Network, Operator, Scales, Value
from kedge_runtime.modelfile.tflite_schema import (
    BUFFER,
    BUFFERS,
    BUILTIN_OPTIONS,
    CODES,
    DTYPE,
    DTYPES,
    IDENTIFIER,
    INPUTS,
    NAME,
    OPCODE,
    OPERATOR_INPUTS,
    OPERATOR_LIST,
    OPERATOR_OUTPUTS,
    OPTIONS,
    OUTPUTS,
    QUANTISATION,
    SCALE,
    SHAPE,
    SIGNATURE,
    SUBGRAPHS,
    TENSORS,
    ZERO_POINT,
    buffer_data,
    operator_code,
)


def read(content: memoryview) -> Network:
    """Return the first subgraph of a file. Raises ValueError, IndexError, struct.error."""
    model = root(content, IDENTIFIER)
    codes = [operator_code(table) for table in model.tables(CODES)]
    buffers = [buffer_data(table) for table in model.tables(BUFFERS)]
    graph = next(model.tables(SUBGRAPHS), None)
    if graph is None:
        raise ValueError("no graph in it")
    values = tuple(_value(table, buffers) for table in graph.tables(TENSORS))
    network = Network(
        "tflite",
        values,
        tuple(_operator(table, codes) for table in graph.tables(OPERATOR_LIST)),
        graph.numbers(INPUTS, "i"),
        graph.numbers(OUTPUTS, "i"),
    )
    _check(network)
    return network


def _value(table: Table, buffers: list[memoryview | None]) -> Value:
    signature = table.numbers(SIGNATURE, "i")
    dtype = table.number(DTYPE, "b")
    return Value(
        name=table.text(NAME),
        shape=signature or table.numbers(SHAPE, "i"),
        dtype=DTYPES[dtype] if 0 <= dtype < len(DTYPES) else f"type{dtype}",
        scales=_scales(table.table(QUANTISATION)),
        data=buffers[table.number(BUFFER, "I")],
    )


def _scales(table: Table | None) -> Scales | None:
    if table is None:
        return None
    zeros = table.numbers(ZERO_POINT, "q")
    return Scales.of(table.numbers(SCALE, "f"), zeros[0] if zeros else 0)


def _operator(table: Table, codes: list[tuple[str, int]]) -> Operator:
    kind, version = codes[table.number(OPCODE, "I")]
    options = table.table(BUILTIN_OPTIONS)
    return Operator(
        kind,
        version,
        table.numbers(OPERATOR_INPUTS, "i"),
        table.numbers(OPERATOR_OUTPUTS, "i"),
        dict(_options(kind, options)) if options else {},
    )


def _options(kind: str, table: Table) -> Iterator[tuple[str, int]]:
    for name, (field, format, default) in OPTIONS.get(kind, {}).items():
        yield name, table.number(field, format, default)


def _check(network: Network) -> None:
    """Refuse operators that name missing values."""
    indices = [i for each in network.operators for i in (*each.inputs, *each.outputs)]
    indices += [*network.inputs, *network.outputs]
    if indices and not -1 <= min(indices) <= max(indices) < len(network.values):
        raise ValueError("an operator of tensors that aren't there")
