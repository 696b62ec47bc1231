"""Check one operator of a .tflite file against its Rule, and tell what it costs."""

import math

from kedge_runtime.inspect.tflite_rules import QUANTISED, RULES, Operand, Rule
from kedge_runtime.inspect.tflite_shapes import Step, Tensor, UnsoundError

ACTIVATIONS = 6  # of ActivationFunctionType: none, relu, relu_n1, relu6, tanh, sign


def check_step(step: Step, version: int, union: int) -> None:
    """Raise UnsoundError; `union`: the number of the table of options that it has."""
    rule = RULES[step.kind]
    if not 1 <= version <= rule.version:
        raise UnsoundError(f"its version is {version}, known are 1 to {rule.version}")
    _check_options(step, rule, union)
    _check_operands(step, rule)
    if rule.outputs not in (0, len(step.gives)) or not step.gives:
        raise UnsoundError(f"it gives {len(step.gives)} tensors")
    _check_types(step, rule)
    _check_shapes(step, rule)


def _check_options(step: Step, rule: Rule, union: int) -> None:
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


def _check_operands(step: Step, rule: Rule) -> None:
    operands, count = rule.takes, len(step.takes)
    if rule.repeats:
        operands = operands * max(count, 1)
    least = len(operands)
    while least and operands[least - 1].absent:
        least -= 1
    if not least <= count <= len(operands):
        raise UnsoundError(f"it has {count} operands, allowed are {least} to {len(operands)}")
    for place, (operand, tensor) in enumerate(zip(operands, step.takes, strict=False)):
        if tensor is None:
            if not operand.optional:
                raise UnsoundError(f"operand {place} is left out")
        else:
            _check_operand(place, operand, tensor)


def _check_operand(place: int, operand: Operand, tensor: Tensor) -> None:
    low, high = operand.ranks
    if operand.types and tensor.dtype not in operand.types:
        raise UnsoundError(f"operand {place} is {tensor.dtype}")
    if not low <= len(tensor.shape) <= high:
        raise UnsoundError(f"operand {place} has {len(tensor.shape)} dimensions")
    if tensor.variable is not operand.variable:
        raise UnsoundError(f"operand {place} is {'' if tensor.variable else 'no '}variable")
    if tensor.shape == (0,) and low != high:
        raise UnsoundError(f"operand {place} is empty")
    if tensor.data is None and (operand.held or (operand.weights and tensor.dtype != "float32")):
        raise UnsoundError(f"operand {place} is no constant")


def _check_types(step: Step, rule: Rule) -> None:
    main = step.takes[rule.main]
    kind = main.dtype if main is not None else ""
    for place, (operand, tensor) in enumerate(
        zip(rule.takes * (len(step.takes) if rule.repeats else 1), step.takes, strict=False)
    ):
        if tensor is None:
            continue
        if (rule.repeats or not operand.types) and tensor.dtype != kind:
            raise UnsoundError(f"operand {place} is {tensor.dtype} beside {kind}")
        if rule.scaled and tensor.dtype in QUANTISED and not tensor.scales:
            raise UnsoundError(f"operand {place} of {tensor.dtype} has no scale")
        if tensor.scales > 1 and not operand.weights:
            raise UnsoundError(f"operand {place} has {tensor.scales} scales")
    for place, tensor in enumerate(step.gives):
        allowed = rule.gives or {kind}
        if tensor.dtype not in allowed and not (place and "int32" == tensor.dtype in rule.gives):
            raise UnsoundError(f"it gives {tensor.dtype} of {kind}")
        if tensor.scales > 1 or (rule.scaled and tensor.dtype in QUANTISED and not tensor.scales):
            raise UnsoundError(f"it gives {tensor.dtype} of {tensor.scales} scales")


def _check_shapes(step: Step, rule: Rule) -> None:
    found = rule.shapes(step)
    if len(found) != len(step.gives):
        raise UnsoundError(f"it gives {len(step.gives)} tensors instead of {len(found)}")
    for shape, tensor in zip(found, step.gives, strict=True):
        if shape is not None and shape != tensor.shape:
            raise UnsoundError(f"it gives the shape {shape}, the file says {tensor.shape}")


def work(step: Step) -> int:
    """Return how many multiplications an operator makes, or numbers it moves."""
    given = sum(tensor.elements for tensor in step.gives)
    taken = sum(tensor.elements for tensor in step.takes if tensor is not None)
    return given + taken + given * _depth(step)


def _depth(step: Step) -> int:
    """Return how many numbers one result is the sum of."""
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


def scratch(step: Step) -> int:
    """Return the bytes that a kernel lays out beside its tensors: the windows of a convolution."""
    if step.kind not in ("CONV_2D", "CONV_3D", "TRANSPOSE_CONV"):
        return 0
    wide = step.takes[rule_main(step)]
    item = 4 if wide is None or wide.dtype == "float32" else 1
    windows = step.gives[0].elements // step.gives[0].shape[-1]
    if step.kind == "TRANSPOSE_CONV":
        windows = wide.elements // wide.shape[-1] if wide is not None else 0
        return windows * math.prod(step.shape(1)[:3]) * item + step.gives[0].elements * 4
    return windows * _depth(step) * item


def rule_main(step: Step) -> int:
    """Return which operand is the input itself."""
    return RULES[step.kind].main
