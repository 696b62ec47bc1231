"""Arithmetic, comparisons and choices, number by number, with broadcasting."""

from collections.abc import Callable

from kedge_convert.export.onnx_program.activations import with_fused
from kedge_convert.export.onnx_program.calls import Made, OperatorCall, Rule
from kedge_convert.toolkit import require

# Operators that ONNX has as well.
_SAME = {
    "ABS": "Abs",
    "ADD": "Add",
    "CEIL": "Ceil",
    "COS": "Cos",
    "DIV": "Div",
    "EQUAL": "Equal",
    "EXP": "Exp",
    "FLOOR": "Floor",
    "GREATER": "Greater",
    "GREATER_EQUAL": "GreaterOrEqual",
    "LESS": "Less",
    "LESS_EQUAL": "LessOrEqual",
    "LOG": "Log",
    "LOGICAL_AND": "And",
    "LOGICAL_OR": "Or",
    "MAXIMUM": "Max",
    "MINIMUM": "Min",
    "MUL": "Mul",
    "NEG": "Neg",
    "POW": "Pow",
    "ROUND": "Round",
    "SELECT_V2": "Where",
    "SIGN": "Sign",
    "SIN": "Sin",
    "SQRT": "Sqrt",
    "SUB": "Sub",
}

# Chains of ONNX operators behind the first.
_CHAINS = {
    "FLOOR_DIV": ("Div", "Floor"),
    "NOT_EQUAL": ("Equal", "Not"),
    "RSQRT": ("Sqrt", "Reciprocal"),
}


def _chain(kinds: tuple[str, ...]) -> Callable[[OperatorCall], Made]:
    def rule(call: OperatorCall) -> Made:
        layout = call.layout()
        values = [call.value(i, layout) for i in range(call.count)]
        for kind in kinds:
            values = [call.node(kind, *values)]
        return with_fused(call, Made(values[0], layout))

    return rule


def _square(call: OperatorCall) -> Made:
    layout = call.layout()
    value = call.value(0, layout)
    return Made(call.node("Mul", value, value), layout)


def _squared_difference(call: OperatorCall) -> Made:
    layout = call.layout()
    difference = call.node("Sub", call.value(0, layout), call.value(1, layout))
    return Made(call.node("Mul", difference, difference), layout)


# schema.fbs: TensorType -> onnx.TensorProto
_TYPES = {"BOOL": "BOOL", "FLOAT32": "FLOAT", "INT32": "INT32", "INT64": "INT64"}


def _cast(call: OperatorCall) -> Made:
    # Not every file says it in the options.
    wanted = call.tensors.kind(call.operation.outputs[0])
    if wanted not in _TYPES:
        raise call.refusal(f"to {wanted}")
    layout = call.layout()
    to = getattr(require("onnx").TensorProto, _TYPES[wanted])
    return Made(call.node("Cast", call.value(0, layout), to=to), layout)


def _select(call: OperatorCall) -> Made:
    """Write a choice; in the older operator a row of conditions is for the first axis."""
    if call.shape(0) != call.shape(1):
        raise call.refusal("by rows")
    return _chain(("Where",))(call)


def _widened(call: OperatorCall) -> Made:
    """Write float16 as float32; integers, which have a scale, are in no float program."""
    if not call.is_constant(0) or call.constant(0).dtype.kind != "f":
        raise call.refusal("of integers")
    return Made(call.node("Cast", call.value(), to=require("onnx").TensorProto.FLOAT))


RULES: dict[str, Rule] = {
    **{kind: _chain((same,)) for kind, same in _SAME.items()},
    **{kind: _chain(chain) for kind, chain in _CHAINS.items()},
    "CAST": _cast,
    "DEQUANTIZE": _widened,
    "SELECT": _select,
    "SQUARE": _square,
    "SQUARED_DIFFERENCE": _squared_difference,
}
