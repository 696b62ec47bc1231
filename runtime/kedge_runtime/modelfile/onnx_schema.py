"""Define the field numbers and types of ONNX files: onnx/onnx.proto."""

GRAPH, OPSETS, FUNCTIONS = 7, 8, 25  # ModelProto
OPSET_DOMAIN, OPSET_VERSION = 1, 2  # OperatorSetIdProto
NODE, INITIALISER, INPUT, OUTPUT, VALUE_INFO, SPARSE = 1, 5, 11, 12, 13, 15  # GraphProto
NODE_INPUT, NODE_OUTPUT, OP_TYPE, ATTRIBUTE, DOMAIN = 1, 2, 4, 5, 7  # NodeProto
ATTRIBUTE_NAME, INT, TEXT, TENSOR, INTS = 1, 3, 4, 5, 8  # AttributeProto
NESTED = (6, 11, 10, 22, 23)  # AttributeProto: graphs, lists of tensors, sparse tensors
DIMS, DATA_TYPE, TENSOR_NAME, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 8, 13, 14  # TensorProto
FLOAT_DATA, INT32_DATA, INT64_DATA, RAW_DATA = 4, 5, 7, 9  # TensorProto
TYPED_DATA = {4: 4, 5: 0, 7: 0, 10: 8, 11: 0}  # TensorProto's lists: bytes of one, 0 for varints
VALUE_NAME, VALUE_TYPE = 1, 2  # ValueInfoProto
TENSOR_TYPE = 1  # TypeProto
ELEMENT_TYPE, SHAPE = 1, 2  # TypeProto.Tensor
DIM, DIM_VALUE = 1, 1  # TensorShapeProto and its Dimension
EXTERNAL = 1  # TensorProto.DataLocation

# TensorProto.DataType
DTYPES = (
    *("none", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool"),
    *("float16", "float64", "uint32", "uint64", "complex64", "complex128", "bfloat16"),
)


def dtype_name(code: int) -> str:
    """Return the name of a data type, "" for an unknown one."""
    return DTYPES[code] if 0 <= code < len(DTYPES) else ""
