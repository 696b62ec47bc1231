"""Where a .tflite file has what: the numbers of its tables' fields, and the two that take two.

Source: tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

from kedge_runtime.flatbuffer import Table
from kedge_runtime.inspect.tflite_names import CUSTOM, OPERATORS

IDENTIFIER = b"TFL3"
CODES, SUBGRAPHS, BUFFERS = 1, 2, 4  # Model
OLD_CODE, CUSTOM_CODE, VERSION, CODE = 0, 1, 2, 3  # OperatorCode
TENSORS, INPUTS, OUTPUTS, OPERATOR_LIST = 0, 1, 2, 3  # SubGraph
SHAPE, DTYPE, BUFFER, NAME, QUANTISATION, SIGNATURE = 0, 1, 2, 3, 4, 7  # Tensor
SCALE, ZERO_POINT = 2, 3  # QuantizationParameters
OPCODE, TAKES, GIVES, BUILTIN_OPTIONS = 0, 1, 2, 4  # Operator
DATA, OFFSET, SIZE = 0, 1, 2  # Buffer


def operator_code(table: Table) -> tuple[str, int]:
    """Return an operator's name and version; files before 2020 have the code in one byte."""
    code = max(table.number(OLD_CODE, "b"), table.number(CODE, "i"))
    name = OPERATORS[code] if 0 <= code < len(OPERATORS) else f"BUILTIN_{code}"
    return table.text(CUSTOM_CODE) if name == CUSTOM else name, table.number(VERSION, "i", 1)


def buffer_data(table: Table) -> memoryview | None:
    """Return a buffer's bytes, None for an empty one; those of huge files lie behind the graph."""
    at, size = table.number(OFFSET, "Q"), table.number(SIZE, "Q")
    if at > 1:
        return table.buffer[at : at + size]
    return table.raw(DATA) or None
