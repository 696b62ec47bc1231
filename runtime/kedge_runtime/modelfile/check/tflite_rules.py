"""Define what LiteRT's kernels require of operators: operands, types, versions and shapes."""

from collections.abc import Callable
from typing import NamedTuple

from kedge_runtime.modelfile.check import tflite_moves as moves
from kedge_runtime.modelfile.check import tflite_shapes as shapes
from kedge_runtime.modelfile.check.tflite_shapes import (
    Shape,
    Shapes,
    TfliteStep,
    UnsoundError,
    in_words,
)


def sequence_lstm(step: TfliteStep) -> Shapes:
    """Apply an LSTM to [n, t, c] or [t, n, c]; gates' weights: [units, c], [units, outputs]."""
    a, b, c = step.shape()
    batch = b if step.number(3, "?") else a
    units, width = step.shape(4)[0], step.shape(8)[1]
    sizes: dict[int, Shape] = dict.fromkeys(range(1, 5), (units, c))
    sizes |= dict.fromkeys(range(5, 9), (units, width)) | dict.fromkeys(range(9, 16), (units,))
    sizes |= {16: (width, units), 17: (width,), 18: (batch, width), 19: (batch, units)}
    sizes |= dict.fromkeys(range(20, 24), (units,))
    for place, size in sizes.items():
        tensor = step.given(place)
        if tensor is not None and tensor.shape != size:
            raise UnsoundError(
                f"operand {place} is {in_words(tensor.shape)} instead of {in_words(size)}"
            )
    if step.given(16) is None and units != width:
        raise UnsoundError(f"it gives {width} of {units} units without a projection")
    return [(a, b, width)]


def sequence_rnn(step: TfliteStep) -> Shapes:
    """Apply an RNN to [n, t, c] or [t, n, c]; weights: [units, c]."""
    a, b, c = step.shape()
    units = step.shape(1)[0]
    batch = b if step.number(0, "?") else a
    wanted = [(units, c), (units, units), (units,), (batch, units)]
    if [step.shape(place) for place in range(1, 5)] != wanted:
        raise UnsoundError("its weights don't fit each other")
    return [(a, b, units)]


def _types(names: str) -> frozenset[str]:
    return frozenset(names.split())


FLOAT = _types("float32")
REAL = _types("float32 uint8 int8 int16")  # what is quantised, or float
NUMBER = REAL | _types("int32 int64")
ANY = NUMBER | _types("bool float16 uint32 float64 uint16")
PLACES = _types("int32 int64")
INT = _types("int32")
BOOL = _types("bool")
WEIGHTS = _types("float32 uint8 int8 int16 int4")
BIAS = _types("float32 int32 int64")
QUANTISED = _types("uint8 int8 int16 int4")
ALIKE: frozenset[str] = frozenset()  # the main operand's type

MOST = 8  # dimensions: RuntimeShape of LiteRT's kernels keeps no more on the stack


class Operand(NamedTuple):
    """One input: its allowed types, and its least and largest number of dimensions.

    `types` empty: the same as the operator's main operand. `optional`: may be left out as -1.
    `absent`: the list of inputs may end before it. `constant`: must be a constant. `weights`: may
    have a scale per channel; if it is no constant, it must be float. `variable`: must be a state.
    """

    types: frozenset[str]
    ranks: tuple[int, int] = (0, MOST)
    optional: bool = False
    absent: bool = False
    constant: bool = False
    weights: bool = False
    variable: bool = False


class KernelRule(NamedTuple):
    """The requirements of one operator.

    `version`: the highest known. `options`: the number of its table in schema.fbs' union, 0 for
    none. `output_types`: empty for the main operand's. `scaled`: integers of 8 and 16 bits need a
    scale. `repeats`: the last input may be repeated. `main`: the input that sets the types.
    `output_count`: 0 for any. `needed`: whether the options must be present. `activation`: the
    option with the fused one. `reals`: float32 options with their least and largest value.
    """

    operands: tuple[Operand, ...]
    shapes: Callable[[TfliteStep], Shapes]
    version: int
    options: int = 0
    output_types: frozenset[str] = ALIKE
    scaled: bool = True
    repeats: bool = False
    main: int = 0
    output_count: int = 1
    needed: bool = True
    activation: int | None = None
    reals: tuple[tuple[int, float, float], ...] = ()


def _unary(version: int, types: frozenset[str] = REAL, options: int = 0) -> KernelRule:
    return KernelRule((Operand(types),), shapes.same, version, options)


def _binary(version: int, types: frozenset[str] = NUMBER, options: int = 0) -> KernelRule:
    activation = 0 if options else None  # of arithmetic, the only one with options
    return KernelRule(
        (Operand(types), Operand(ALIKE)),
        shapes.broadcast,
        version,
        options,
        activation=activation,
    )


def _compare(version: int, types: frozenset[str] = NUMBER) -> KernelRule:
    return KernelRule(
        (Operand(types), Operand(ALIKE)), shapes.broadcast, version, output_types=BOOL
    )


def _reduce(version: int, types: frozenset[str] = NUMBER) -> KernelRule:
    return KernelRule((Operand(types), LIST), shapes.reduce, version, 27, needed=False)


def _move(version: int, shape: Callable[[TfliteStep], Shapes], *others: Operand) -> KernelRule:
    return KernelRule((Operand(ANY), *others), shape, version, scaled=False)


IMAGE = Operand(REAL, (4, 4))
LIST = Operand(INT, (0, 1))
SIZES = Operand(PLACES, (1, 1))
KERNEL = Operand(WEIGHTS, (4, 4), weights=True)
BIAS_THERE = Operand(BIAS, (1, 1), optional=True, weights=True)
ONE_BIAS = BIAS_THERE._replace(absent=True)
GATE = Operand(_types("float32 int8 uint8"), (2, 2), constant=True)
LEFT_OUT = Operand(_types("float32 int8 uint8 int16 int32"), (1, 2), optional=True, constant=True)
STATE = Operand(_types("float32 int16 int8"), (2, 2), variable=True)

RULES: dict[str, KernelRule] = {
    **dict.fromkeys(("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"), _unary(3)),
    **dict.fromkeys(("LOGISTIC", "TANH", "HARD_SWISH"), _unary(3)),
    **dict.fromkeys(("ELU", "FLOOR", "CEIL", "ROUND", "COS", "SIN"), _unary(1, FLOAT)),
    **dict.fromkeys(("EXP", "LOG", "SQRT", "RSQRT", "ABS", "SIGN"), _unary(5)),
    **dict.fromkeys(("NEG", "SQUARE"), _unary(1, NUMBER)),
    "GELU": _unary(2, REAL, 116),
    "LEAKY_RELU": KernelRule((Operand(REAL),), shapes.same, 2, 75, reals=((0, -1e3, 1e3),)),
    "SOFTMAX": KernelRule((Operand(REAL, (1, 4)),), shapes.same, 3, 9, reals=((0, 1e-6, 1e3),)),
    "LOG_SOFTMAX": KernelRule((Operand(REAL, (1, 4)),), shapes.same, 2),
    "L2_NORMALIZATION": KernelRule((Operand(REAL, (1, 4)),), shapes.same, 2, 12),
    "LOCAL_RESPONSE_NORMALIZATION": KernelRule(
        (Operand(FLOAT, (4, 4)),),
        shapes.same,
        1,
        13,
        reals=((1, 0, 1e6), (2, 0, 1e6), (3, 0, 1e3)),
    ),
    "ZEROS_LIKE": KernelRule((Operand(_types("float32 int32 int64")),), shapes.same, 1),
    "LOGICAL_NOT": KernelRule((Operand(BOOL),), shapes.same, 1),
    "CAST": KernelRule((Operand(ANY),), shapes.same, 7, output_types=ANY, scaled=False),
    "QUANTIZE": KernelRule(
        (Operand(REAL),), shapes.same, 4, output_types=_types("uint8 int8 int16")
    ),
    "DEQUANTIZE": KernelRule(
        (Operand(REAL | _types("float16 int4")),), shapes.same, 6, output_types=FLOAT
    ),
    "ADD": _binary(5, NUMBER, 11),
    "SUB": _binary(5, NUMBER, 28),
    "MUL": _binary(7, NUMBER, 21),
    "DIV": _binary(2, _types("float32 uint8 int32"), 29),
    **dict.fromkeys(("MINIMUM", "MAXIMUM"), _binary(4)),
    "POW": _binary(1, _types("float32 int32")),
    **dict.fromkeys(("FLOOR_DIV", "FLOOR_MOD"), _binary(2, _types("float32 int32 int64"))),
    "SQUARED_DIFFERENCE": _binary(2, _types("float32 int8 int16 int32")),
    "ATAN2": _binary(1, FLOAT),
    **dict.fromkeys(("LOGICAL_AND", "LOGICAL_OR"), _binary(1, BOOL)),
    **dict.fromkeys(("GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"), _compare(3)),
    **dict.fromkeys(("EQUAL", "NOT_EQUAL"), _compare(4, NUMBER | BOOL)),
    "PRELU": KernelRule((Operand(REAL, (1, 4)), Operand(ALIKE)), shapes.prelu, 1),
    "SELECT": KernelRule((Operand(BOOL), Operand(ANY), Operand(ALIKE)), shapes.select, 4, main=1),
    "SELECT_V2": KernelRule(
        (Operand(BOOL), Operand(ANY), Operand(ALIKE)), shapes.broadcast, 2, main=1
    ),
    "ADD_N": KernelRule((Operand(_types("float32 int32")),), shapes.broadcast, 1, repeats=True),
    "CONV_2D": KernelRule((IMAGE, KERNEL, ONE_BIAS), shapes.conv_2d, 9, 1, activation=3),
    "DEPTHWISE_CONV_2D": KernelRule(
        (IMAGE, KERNEL, BIAS_THERE), shapes.depthwise, 7, 2, activation=4
    ),
    "TRANSPOSE_CONV": KernelRule(
        (SIZES, KERNEL, IMAGE, ONE_BIAS), shapes.transpose_conv, 5, 49, main=2, activation=3
    ),
    "CONV_3D": KernelRule(
        (
            Operand(FLOAT, (5, 5)),
            Operand(FLOAT, (5, 5)),
            Operand(FLOAT, (1, 1), optional=True, absent=True),
        ),
        shapes.conv_3d,
        1,
        106,
        activation=4,
    ),
    **dict.fromkeys(
        ("AVERAGE_POOL_2D", "MAX_POOL_2D"), KernelRule((IMAGE,), shapes.pool, 3, 5, activation=5)
    ),
    "FULLY_CONNECTED": KernelRule(
        (Operand(REAL, (1, MOST)), Operand(WEIGHTS, (2, 2), weights=True), ONE_BIAS),
        shapes.fully_connected,
        14,
        8,
        activation=0,
    ),
    "BATCH_MATMUL": KernelRule(
        (Operand(REAL, (2, 5)), Operand(REAL, (2, 5))), shapes.batch_matmul, 4, 101
    ),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_PROD"), _reduce(3)),
    **dict.fromkeys(("REDUCE_MAX", "REDUCE_MIN"), _reduce(3)),
    **dict.fromkeys(("REDUCE_ANY", "REDUCE_ALL"), _reduce(1, BOOL)),
    **dict.fromkeys(
        ("ARG_MAX", "ARG_MIN"),
        KernelRule(
            (Operand(NUMBER, (1, MOST)), Operand(PLACES, (0, 1))),
            shapes.arg,
            3,
            output_types=PLACES,
        ),
    ),
    "CUMSUM": KernelRule(
        (Operand(_types("float32 int32 int64"), (1, MOST)), LIST), shapes.along, 1, 102
    ),
    "REVERSE_V2": _move(3, shapes.along, LIST),
    "RESHAPE": KernelRule(
        (Operand(ANY), Operand(INT, (1, 1), absent=True)),
        shapes.reshape,
        1,
        17,
        scaled=False,
        needed=False,
    ),
    "SQUEEZE": KernelRule((Operand(ANY),), shapes.squeeze, 2, 30, scaled=False, needed=False),
    "EXPAND_DIMS": _move(1, shapes.expand_dims, Operand(PLACES, (0, 1))),
    "TRANSPOSE": KernelRule((Operand(ANY, (1, 6)), SIZES), shapes.transpose, 7, scaled=False),
    "CONCATENATION": KernelRule(
        (Operand(ANY, (1, MOST)),), moves.concatenation, 4, 10, repeats=True, activation=1
    ),
    "PACK": KernelRule((Operand(ANY, (0, 7)),), moves.pack, 4, 59, repeats=True, scaled=False),
    "UNPACK": KernelRule(
        (Operand(ANY, (1, MOST)),), moves.unpack, 4, 64, scaled=False, output_count=0
    ),
    "SPLIT": KernelRule(
        (LIST, Operand(ANY, (1, MOST))), moves.split, 4, 35, scaled=False, main=1, output_count=0
    ),
    "SPLIT_V": KernelRule(
        (Operand(ANY, (1, MOST)), SIZES, LIST), moves.split_v, 2, 79, scaled=False, output_count=0
    ),
    "SLICE": KernelRule((Operand(ANY, (1, 5)), SIZES, SIZES), moves.slice_, 6, scaled=False),
    "STRIDED_SLICE": KernelRule(
        (Operand(ANY, (1, 5)), SIZES, SIZES, SIZES), moves.strided_slice, 8, 32, scaled=False
    ),
    "PAD": KernelRule((Operand(ANY, (1, 5)), Operand(PLACES, (2, 2))), moves.pad, 4, scaled=False),
    "PADV2": KernelRule(
        (Operand(ANY, (1, 5)), Operand(PLACES, (2, 2)), Operand(ALIKE)), moves.pad, 4, scaled=False
    ),
    "MIRROR_PAD": KernelRule(
        (Operand(REAL, (1, 5)), Operand(PLACES, (2, 2))), moves.mirror_pad, 3, 77, scaled=False
    ),
    "TILE": _move(3, moves.tile, SIZES),
    "BROADCAST_TO": _move(3, moves.broadcast_to, SIZES),
    "GATHER": KernelRule(
        (Operand(ANY, (1, MOST)), Operand(PLACES)), moves.gather, 7, 23, scaled=False
    ),
    "GATHER_ND": _move(5, moves.gather_nd, Operand(PLACES, (1, MOST))),
    "EMBEDDING_LOOKUP": KernelRule(
        (Operand(INT, (1, 1)), Operand(_types("float32 int8 uint8"), (2, MOST), constant=True)),
        moves.embedding_lookup,
        4,
        output_types=_types("float32 int8 uint8"),
        main=1,
    ),
    "RESIZE_BILINEAR": KernelRule((IMAGE, Operand(INT, (1, 1))), moves.resize, 4, 15),
    "RESIZE_NEAREST_NEIGHBOR": KernelRule((IMAGE, Operand(INT, (1, 1))), moves.resize, 4, 74),
    "SPACE_TO_DEPTH": KernelRule(
        (Operand(ANY, (4, 4)),), moves.space_to_depth, 2, 19, scaled=False
    ),
    "DEPTH_TO_SPACE": KernelRule(
        (Operand(ANY, (4, 4)),), moves.depth_to_space, 2, 94, scaled=False
    ),
    "SPACE_TO_BATCH_ND": KernelRule(
        (Operand(REAL, (3, 4)), SIZES, Operand(INT, (2, 2))), moves.space_to_batch, 4, scaled=False
    ),
    "BATCH_TO_SPACE_ND": KernelRule(
        (Operand(REAL, (3, 4)), SIZES, Operand(INT, (2, 2))), moves.batch_to_space, 4, scaled=False
    ),
    "SHAPE": KernelRule((Operand(ANY),), moves.shape_of, 1, output_types=PLACES, scaled=False),
    "FILL": KernelRule((SIZES, Operand(ANY, (0, 0))), moves.fill, 4, main=1, scaled=False),
    "ONE_HOT": KernelRule(
        (Operand(PLACES), LIST, Operand(ANY, (0, 1)), Operand(ALIKE, (0, 1))),
        moves.one_hot,
        1,
        61,
        main=2,
        scaled=False,
    ),
    "TOPK_V2": KernelRule(
        (Operand(NUMBER, (1, MOST)), LIST), moves.top_k, 3, output_count=2, output_types=NUMBER
    ),
    "SCATTER_ND": KernelRule(
        (Operand(INT, (1, 5)), Operand(_types("float32 int8 uint8 int32 int64")), SIZES),
        moves.scatter_nd,
        1,
        main=1,
        scaled=False,
    ),
    "DYNAMIC_UPDATE_SLICE": _move(4, moves.update_slice, Operand(ALIKE), SIZES),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": KernelRule(
        (
            Operand(_types("float32 int8"), (3, 3)),
            *(LEFT_OUT, GATE, GATE, GATE, LEFT_OUT, GATE, GATE, GATE),
            *(LEFT_OUT,) * 4,
            *(Operand(BIAS, (1, 1), constant=True),) * 3,
            *(LEFT_OUT,) * 2,
            *(STATE,) * 2,
            *(LEFT_OUT._replace(absent=True),) * 4,
        ),
        sequence_lstm,
        4,
        71,
    ),
    "UNIDIRECTIONAL_SEQUENCE_RNN": KernelRule(
        (
            Operand(FLOAT, (3, 3)),
            *(Operand(_types("float32 int8 uint8"), (2, 2)),) * 2,
            Operand(FLOAT, (1, 1)),
            Operand(FLOAT, (2, 2)),
        ),
        sequence_rnn,
        3,
        31,
    ),
}
