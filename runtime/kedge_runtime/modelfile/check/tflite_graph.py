"""Read the subgraphs of a .tflite file, and check each tensor and operator alone."""

import math
from typing import NamedTuple

from kedge_runtime.modelfile import tflite_schema as tflite
from kedge_runtime.modelfile.check.tflite_rules import QUANTISED, RULES, KernelRule, Operand
from kedge_runtime.modelfile.check.tflite_shapes import TfliteStep, TfliteTensor, UnsoundError
from kedge_runtime.modelfile.encodings import Table, root
from kedge_runtime.modelfile.tflite_schema import DTYPES, ITEM_BYTES

# Far above any network for images: the zoo's largest takes 120 MB.
MAX_MEMORY = 320 << 20
MAX_RANK, MAX_GRAPHS = 8, 64

SPARSITY, VARIABLE, AXIS = 6, 5, 6  # Tensor, Tensor, QuantizationParameters
# LiteRT's kernels for sound and detection, whose inputs no rule here bounds.
CUSTOM_KERNELS = frozenset(
    ("AudioSpectrogram", "Mfcc", "NumericVerify", "TFLite_Detection_PostProcess")
)
ZERO_POINTS = {"uint8": (0, 255), "int8": (-128, 127), "int16": (0, 0), "int4": (-8, 7)}


class Subgraph(NamedTuple):
    """A subgraph, with its operators as tables."""

    tensors: list[TfliteTensor]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: list[Table]


class TfliteModel(NamedTuple):
    """A file's subgraphs, and the name and version of each kind of operator."""

    codes: list[tuple[str, int]]
    graphs: list[Subgraph]


def read_model(content: memoryview) -> TfliteModel:
    """Read a file. Raises UnsoundError, ValueError, IndexError, struct.error."""
    model = root(content, tflite.IDENTIFIER)
    codes = [tflite.operator_code(table) for table in model.tables(tflite.CODES)]
    if found := CUSTOM_KERNELS.intersection(kind for kind, _ in codes):
        raise UnsoundError(f"it has the operator {min(found)}")
    buffers = [tflite.buffer_data(table) for table in model.tables(tflite.BUFFERS)]
    graphs = [_graph(table, buffers) for table in model.tables(tflite.SUBGRAPHS)]
    if not 1 <= len(graphs) <= MAX_GRAPHS:
        raise UnsoundError(f"it has {len(graphs)} subgraphs")
    return TfliteModel(codes, graphs)


def _graph(table: Table, buffers: list[memoryview | None]) -> Subgraph:
    tensors = [_tensor(each, buffers) for each in table.tables(tflite.TENSORS)]
    inputs, outputs = table.numbers(tflite.INPUTS, "i"), table.numbers(tflite.OUTPUTS, "i")
    for place in (*inputs, *outputs):
        if not 0 <= place < len(tensors):
            raise UnsoundError(f"a subgraph begins or ends at tensor {place} of {len(tensors)}")
    if len(set(inputs)) < len(inputs) or any(tensors[i].data is not None for i in inputs):
        raise UnsoundError("an input is a constant, or there twice")
    return Subgraph(tensors, inputs, outputs, list(table.tables(tflite.OPERATOR_LIST)))


def _tensor(table: Table, buffers: list[memoryview | None]) -> TfliteTensor:
    shape, kind = table.numbers(tflite.SHAPE, "i"), table.number(tflite.DTYPE, "b")
    place = table.number(tflite.BUFFER, "I")
    if place >= len(buffers):
        raise UnsoundError(f"a tensor lies in buffer {place} of {len(buffers)}")
    if not 0 <= kind < len(DTYPES) or len(shape) > MAX_RANK:
        raise UnsoundError(f"a tensor has type {kind} and {len(shape)} dimensions")
    if table.table(SPARSITY) is not None:
        raise UnsoundError("a tensor is sparse")
    tensor = TfliteTensor(
        shape, DTYPES[kind], buffers[place], variable=bool(table.number(VARIABLE, "?"))
    )
    tensor.open_batch = table.numbers(tflite.SIGNATURE, "i")[:1] == (-1,)
    _check_sides(tensor)
    if (quantisation := table.table(tflite.QUANTISATION)) is not None:
        _check_scales(tensor, quantisation)
    return tensor


def _check_sides(tensor: TfliteTensor) -> None:
    """Check that sides are 1 and more, an empty list apart, and that a constant has its bytes."""
    if tensor.shape and min(tensor.shape) < 1 and tensor.shape != (0,):
        raise UnsoundError(f"a tensor has the shape {tensor.shape}")
    if tensor.data is None:
        if tensor.bytes > MAX_MEMORY:
            raise UnsoundError(f"a tensor of shape {tensor.shape} takes too much memory")
        return
    if tensor.variable:
        raise UnsoundError("a variable has constant numbers")
    if tensor.dtype in ITEM_BYTES or tensor.dtype == "int4":
        wanted = (tensor.elements + 1) // 2 if tensor.dtype == "int4" else tensor.bytes
        if tensor.data.nbytes != wanted:
            raise UnsoundError(f"a constant of {wanted} bytes has {tensor.data.nbytes}")


def _check_scales(tensor: TfliteTensor, table: Table) -> None:
    scales, zeros = table.numbers(tflite.SCALE, "f"), table.numbers(tflite.ZERO_POINT, "q")
    if not scales:
        return
    tensor.scales, tensor.axis = len(scales), table.number(AXIS, "i")
    # A NaN makes the sum NaN, so that the comparison fails.
    if not (min(scales) > 0 and sum(scales) < math.inf):
        raise UnsoundError("a tensor has a scale that is no positive number")
    if len(zeros) != len(scales):
        raise UnsoundError(f"a tensor has {len(scales)} scales and {len(zeros)} zero points")
    axis, shape = tensor.axis, tensor.shape
    if len(scales) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scales)):
        raise UnsoundError(f"a tensor of shape {shape} has {len(scales)} scales along axis {axis}")
    low, high = ZERO_POINTS.get(tensor.dtype, (-(2**31), 2**31 - 1))
    for zero in set(zeros):
        if not low <= zero <= high:
            raise UnsoundError(f"a tensor of {tensor.dtype} has the zero point {zero}")


ACTIVATIONS = 6  # of ActivationFunctionType: none, relu, relu_n1, relu6, tanh, sign


def check_step(step: TfliteStep, version: int, union: int) -> None:
    """Check an operator. Raises UnsoundError; `union`: the number of its table of options."""
    rule = RULES[step.kind]
    if not 1 <= version <= rule.version:
        raise UnsoundError(f"its version is {version}, known are 1 to {rule.version}")
    _check_options(step, rule, union)
    _check_operands(step, rule)
    if rule.output_count not in (0, len(step.outputs)) or not step.outputs:
        raise UnsoundError(f"it gives {len(step.outputs)} tensors")
    _check_types(step, rule)
    _check_shapes(step, rule)


def _check_options(step: TfliteStep, rule: KernelRule, union: int) -> None:
    if union != rule.options or step.options is None:
        if rule.options and rule.needed:
            raise UnsoundError(f"its options are of type {union}, not {rule.options}")
        step.options = None
    if rule.activation is not None and not 0 <= step.number(rule.activation, "b") < ACTIVATIONS:
        raise UnsoundError("its activation is unknown")
    for field, low, high in rule.reals:
        value = 0.0 if step.options is None else step.options.real(field)
        if not low <= value <= high:
            raise UnsoundError(f"its option {field} is {value}")


def _check_operands(step: TfliteStep, rule: KernelRule) -> None:
    operands, count = rule.operands, len(step.inputs)
    if rule.repeats:
        operands = operands * max(count, 1)
    least = len(operands)
    while least and operands[least - 1].absent:
        least -= 1
    if not least <= count <= len(operands):
        raise UnsoundError(f"it has {count} operands, allowed are {least} to {len(operands)}")
    for place, (operand, tensor) in enumerate(zip(operands, step.inputs, strict=False)):
        if tensor is None:
            if not operand.optional:
                raise UnsoundError(f"operand {place} is left out")
        else:
            _check_operand(place, operand, tensor)


def _check_operand(place: int, operand: Operand, tensor: TfliteTensor) -> None:
    low, high = operand.ranks
    if operand.types and tensor.dtype not in operand.types:
        raise UnsoundError(f"operand {place} is {tensor.dtype}")
    if not low <= len(tensor.shape) <= high:
        raise UnsoundError(f"operand {place} has {len(tensor.shape)} dimensions")
    if tensor.variable is not operand.variable:
        raise UnsoundError(f"operand {place} is {'' if tensor.variable else 'no '}variable")
    if tensor.shape == (0,) and low != high:
        raise UnsoundError(f"operand {place} is empty")
    if tensor.data is None and (
        operand.constant or (operand.weights and tensor.dtype != "float32")
    ):
        raise UnsoundError(f"operand {place} is no constant")


def _check_types(step: TfliteStep, rule: KernelRule) -> None:
    main = step.inputs[rule.main]
    kind = main.dtype if main is not None else ""
    for place, (operand, tensor) in enumerate(
        zip(rule.operands * (len(step.inputs) if rule.repeats else 1), step.inputs, strict=False)
    ):
        if tensor is None:
            continue
        if (rule.repeats or not operand.types) and tensor.dtype != kind:
            raise UnsoundError(f"operand {place} is {tensor.dtype} beside {kind}")
        if rule.scaled and tensor.dtype in QUANTISED and not tensor.scales:
            raise UnsoundError(f"operand {place} of {tensor.dtype} has no scale")
        if tensor.scales > 1 and not operand.weights:
            raise UnsoundError(f"operand {place} has {tensor.scales} scales")
    for place, tensor in enumerate(step.outputs):
        allowed = rule.output_types or {kind}
        if tensor.dtype not in allowed and not (
            place and "int32" == tensor.dtype in rule.output_types
        ):
            raise UnsoundError(f"it gives {tensor.dtype} of {kind}")
        if tensor.scales > 1 or (rule.scaled and tensor.dtype in QUANTISED and not tensor.scales):
            raise UnsoundError(f"it gives {tensor.dtype} of {tensor.scales} scales")


def _check_shapes(step: TfliteStep, rule: KernelRule) -> None:
    found = rule.shapes(step)
    if len(found) != len(step.outputs):
        raise UnsoundError(f"it gives {len(step.outputs)} tensors instead of {len(found)}")
    for shape, tensor in zip(found, step.outputs, strict=True):
        if shape is None or shape == tensor.shape:
            continue
        if tensor.open_batch and shape[1:] == tensor.shape[1:]:
            tensor.shape = shape  # with blocks in the batch the file still says 1
        else:
            raise UnsoundError(f"it gives the shape {shape}, the file says {tensor.shape}")


def work(step: TfliteStep) -> int:
    """Return the number of an operator's multiplications, or of the numbers that it moves."""
    given = sum(tensor.elements for tensor in step.outputs)
    taken = sum(tensor.elements for tensor in step.inputs if tensor is not None)
    return given + taken + given * _depth(step)


def _depth(step: TfliteStep) -> int:
    """Return how many numbers are added up for one result."""
    if step.kind in ("CONV_2D", "FULLY_CONNECTED", "CONV_3D", "DEPTHWISE_CONV_2D"):
        weights = step.shape(1)
        channels = weights[-1] if step.kind in ("CONV_3D", "DEPTHWISE_CONV_2D") else weights[0]
        return math.prod(weights) // channels
    if step.kind == "TRANSPOSE_CONV":
        return math.prod(step.shape(1)[1:])
    if step.kind == "BATCH_MATMUL":
        return max(step.shape()[-2:])
    if step.kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        return step.number(3) * step.number(4)
    if step.kind == "LOCAL_RESPONSE_NORMALIZATION":
        return step.shape()[-1]
    return 1


def scratch(step: TfliteStep) -> int:
    """Return the bytes that a kernel allocates beside its tensors: a convolution's windows."""
    if step.kind not in ("CONV_2D", "CONV_3D", "TRANSPOSE_CONV"):
        return 0
    wide = step.inputs[rule_main(step)]
    item = 4 if wide is None or wide.dtype == "float32" else 1
    windows = step.outputs[0].elements // step.outputs[0].shape[-1]
    if step.kind == "TRANSPOSE_CONV":
        windows = wide.elements // wide.shape[-1] if wide is not None else 0
        return windows * math.prod(step.shape(1)[:3]) * item + step.outputs[0].elements * 4
    return windows * _depth(step) * item


def rule_main(step: TfliteStep) -> int:
    """Return the position of the main operand."""
    return RULES[step.kind].main
