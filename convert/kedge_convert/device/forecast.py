"""Forecast what the Edge TPU compiler will do with a model, operator by operator."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kedge_models.devices import Device
from kedge_runtime.modelfile.network import Network, Operator, Value

Level = Literal["maps", "stays", "uncertain"]
QUANTISED = frozenset({"int8", "uint8"})
DENSE, SAME_SIZE = "FULLY_CONNECTED", 1.0

AGAIN = "convert with --device coral"
LISTED = "build the model from operators on the list"
# For floats: they are at the ends, or around an operator that has no integers.
REBUILT = f"{LISTED}, and {AGAIN}"
# The compiler's own words, where it has some for the case (its log).
DTYPE = "works on {dtype}, the Edge TPU on int8 and uint8"
SOFTMAX_ELEMENTS = 16_000
# RESIZE: the page says only "depending on input/output size". In the compiler's files enlargements
# by 1 and by 2 are mapped, those by 15.5 (33 to 513) and by 33 (1 to 33) are not.
RESIZE_MAPS, RESIZE_STAYS = 2.0, 15.5
# RESHAPE: "certain reshapes might not be mapped for large tensor sizes"; 2304 elements are mapped.
RESHAPE_ELEMENTS = 2304


@dataclass(frozen=True)
class Doubt:
    """Why an operator stays on the CPU (`stays`) or may stay there, and what to do about it."""

    level: Level
    reason: str
    remedy: str = ""


Check = Callable[[Network, Operator], Doubt | None]


def stays(reason: str, remedy: str = "") -> Doubt:
    """Return an objection that is sure."""
    return Doubt("stays", reason, remedy)


def types(network: Network, operator: Operator) -> Doubt | None:
    """Tensors are int8 or uint8; biases, shapes and an LSTM's state have types of their own."""
    state = {"int16"} if operator.kind == "UNIDIRECTIONAL_SEQUENCE_LSTM" else set()
    for value in _activations(network, operator):
        if value.dtype not in QUANTISED | state:
            return stays(DTYPE.format(dtype=value.dtype), REBUILT)
    return None


def shapes(network: Network, operator: Operator) -> Doubt | None:
    """Sizes are constant, and only the three innermost dimensions are larger than 1."""
    for value in _activations(network, operator):
        if value.elements is None:
            return stays("has a size that isn't fixed in the file", AGAIN)
        if math.prod((value.shape or ())[:-3]) > 1:
            return stays("has more than three dimensions larger than 1", AGAIN)
    return None


def no_activation(network: Network, operator: Operator) -> Doubt | None:
    """Pooling and concatenation have no activation of their own."""
    if operator.options.get("activation", 0):
        return stays("has a fused activation", "put the activation in a layer of its own")
    return None


def padding_concatenation(network: Network, operator: Operator) -> Doubt | None:
    """A constant input is allowed as one of two, and only of zeros."""
    constants = [value for value in network.inputs_of(operator) if value.data is not None]
    if not constants:
        return None
    zeros = all(not any(value.data or b"") for value in constants)
    if len(operator.inputs) != 2 or not zeros:
        return stays("has a constant input that isn't zeros beside one other input")
    return None


def equal_dilation(network: Network, operator: Operator) -> Doubt | None:
    """The same dilation in x and y."""
    if operator.options.get("dilation_w", 1) != operator.options.get("dilation_h", 1):
        return stays("has another dilation in x than in y", "use a square dilation_rate")
    return None


def constant_weights(network: Network, operator: Operator) -> Doubt | None:
    """Parameters are constant at compile time."""
    if any(not value.constant for value in network.inputs_of(operator)[1:3]):
        return stays("has weights that aren't constant")
    return None


def dense(network: Network, operator: Operator) -> Doubt | None:
    """Weights in the default format, one output vector; a scale per output no file has shown."""
    if operator.options.get("weights_format", 0):
        return stays("has shuffled weights")
    if any(math.prod((v.shape or ())[:-1]) > 1 for v in network.outputs_of(operator)):
        return stays("has an output of more than one dimension", "flatten before the dense layer")
    scales = network.inputs_of(operator)[1].scales
    if scales is not None and scales.count > 1:
        return Doubt(
            "uncertain",
            "has a scale per output, which is younger than the last compiler",
            AGAIN,
        )
    return None


def inner_reduction(network: Network, operator: Operator) -> Doubt | None:
    """No reduction over the batch; over channels only in multiples of 4."""
    picture, axes = network.inputs_of(operator)[0], _axes(network, operator)
    rank = len(picture.shape or ())
    if 0 in axes:
        return stays("reduces over the batch")
    if operator.kind == "MEAN" and rank - 1 in axes and (picture.shape or (0,))[-1] % 4:
        return stays("averages over channels that are no multiple of 4")
    return None


def batch_untouched(network: Network, operator: Operator) -> Doubt | None:
    """Nothing is packed, padded or split along the batch."""
    along = {
        "PACK": lambda: operator.options.get("axis", 0) == 0,
        "PAD": lambda: any(network.inputs_of(operator)[1].integers()[:2]),
        "SPLIT": lambda: 0 in network.inputs_of(operator)[0].integers(),
    }
    if along[operator.kind]():
        return stays("works along the batch")
    return None


def one_alpha_a_channel(network: Network, operator: Operator) -> Doubt | None:
    """PReLU has one factor a channel."""
    alpha = network.inputs_of(operator)[1].shape or ()
    if math.prod(alpha[:-1]) > 1:
        return stays("has a factor per pixel", "PReLU(shared_axes=[1, 2])")
    return None


def small_softmax(network: Network, operator: Operator) -> Doubt | None:
    """One vector of at most 16 000 elements."""
    shape = network.inputs_of(operator)[0].shape or ()
    if math.prod(shape[:-1]) > 1 or math.prod(shape) > SOFTMAX_ELEMENTS:
        return stays("isn't over one vector of at most 16000", "leave the softmax to the runtime")
    return None


def unit_strides(network: Network, operator: Operator) -> Doubt | None:
    """Strides of 1 and neither ellipsis nor new axes."""
    strides = network.inputs_of(operator)[3].integers()
    masks = operator.options.get("ellipsis_mask", 0) or operator.options.get("new_axis_mask", 0)
    if masks or any(stride != 1 for stride in strides):
        return stays("has strides, an ellipsis or new axes")
    return None


def small_resize(network: Network, operator: Operator) -> Doubt | None:
    """Enlargements up to 2 are mapped, from 15.5 on not (see RESIZE_MAPS)."""
    before, after = network.inputs_of(operator)[0].shape, network.outputs_of(operator)[0].shape
    pairs = zip((before or ())[1:3], (after or ())[1:3], strict=True)
    factor = max((new / max(old, 1) for old, new in pairs), default=SAME_SIZE)
    if factor >= RESIZE_STAYS:
        return stays(f"enlarges {factor:.1f} times, too far for the precision")
    if factor > RESIZE_MAPS or before is None:
        return Doubt("uncertain", f"enlarges {factor:.1f} times, which no file has shown")
    return None


def small_reshape(network: Network, operator: Operator) -> Doubt | None:
    """Sides of 1 come and go freely; more is sure only up to what a file has shown."""
    before, after = network.inputs_of(operator)[0], network.outputs_of(operator)[0]
    alike = [s for s in before.shape or () if s != 1] == [s for s in after.shape or () if s != 1]
    if alike or (before.elements or 0) <= RESHAPE_ELEMENTS:
        return None
    return Doubt("uncertain", f"reshapes {before.elements} elements, more than a file has shown")


def seen_both_ways(network: Network, operator: Operator) -> Doubt | None:
    """Published logs of the compiler have some of these mapped and some not, without a reason."""
    return Doubt("uncertain", "is mapped in some models and in others not, by published logs")


EVERY: tuple[Check, ...] = (types, shapes)
LIMITS: dict[str, tuple[Check, ...]] = {
    "AVERAGE_POOL_2D": (no_activation,),
    "MAX_POOL_2D": (no_activation,),
    "CONCATENATION": (no_activation, padding_concatenation),
    "CONV_2D": (constant_weights, equal_dilation),
    "DEPTHWISE_CONV_2D": (constant_weights, equal_dilation),
    DENSE: (constant_weights, dense),
    "MEAN": (inner_reduction,),
    "SUM": (inner_reduction,),
    "REDUCE_MAX": (inner_reduction,),
    "REDUCE_MIN": (inner_reduction,),
    "PACK": (batch_untouched,),
    "PAD": (batch_untouched,),
    "SPLIT": (batch_untouched,),
    "PRELU": (one_alpha_a_channel,),
    "SOFTMAX": (small_softmax,),
    "STRIDED_SLICE": (unit_strides,),
    "RESIZE_BILINEAR": (small_resize,),
    "RESIZE_NEAREST_NEIGHBOR": (small_resize,),
    "RESHAPE": (small_reshape,),
    "TRANSPOSE": (seen_both_ways,),
}


def _activations(network: Network, operator: Operator) -> list[Value]:
    read = [value for value in network.inputs_of(operator) if not value.constant]
    return read + list(network.outputs_of(operator))


def _axes(network: Network, operator: Operator) -> set[int]:
    picture, axes = network.inputs_of(operator)[:2]
    rank = len(picture.shape or ())
    return {axis % rank for axis in axes.integers()} if rank else set()


COMPILED = "edgetpu-custom-op"
# What may be done at the Keras level about an operator that isn't on the device's list.
REMEDIES = {
    "HARD_SWISH": "convert with --rewrite hard-swish",
    "DEQUANTIZE": REBUILT,
    "CAST": REBUILT,
    "GELU": "retrain with ReLU6: there is no harmless substitute",
}


@dataclass(frozen=True)
class CompilerForecast:
    """One operator's fate: `operator` is its place in the file.

    `maps`: it will run on the Edge TPU; `stays`: on the CPU, for `reason`, unless `remedy`;
    `uncertain`: neither documentation nor a file says.
    """

    operator: int
    kind: str
    level: Level
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class _Path:
    """What lies on the way to an operator, itself included.

    `entered`: an operator that may be mapped. `doubt`: the first one behind it that breaks the
    segment, for sure or perhaps.
    """

    entered: bool = False
    doubt: Doubt | None = None


def forecast(network: Network, device: Device) -> tuple[CompilerForecast, ...]:
    """Return every operator's fate, in the order of the file."""
    producers = network.producers()
    paths: list[_Path] = []
    found = []
    for i, operator in enumerate(network.operators):
        sources = [paths[p] for p in map(producers.get, operator.inputs) if p is not None and p < i]
        own = judge(network, operator, device)
        before = _worst([path.doubt for path in sources])
        fate = _worst([own, before])
        paths.append(_onward(operator, own, before, any(path.entered for path in sources)))
        level, reason, remedy = (fate.level, fate.reason, fate.remedy) if fate else ("maps", "", "")
        found.append(CompilerForecast(i, operator.kind, level, reason, remedy))
    return tuple(found)


def judge(network: Network, operator: Operator, device: Device) -> Doubt | None:
    """Return the first objection against an operator by itself."""
    if operator.kind == COMPILED:
        return None
    listed = device.operators.get(network.format, ())
    if operator.kind not in listed:
        remedy = REMEDIES.get(operator.kind, LISTED)
        return stays("isn't on the Edge TPU's list of operators", remedy)
    checks = (*EVERY, *LIMITS.get(operator.kind, ()))
    return _worst([check(network, operator) for check in checks])


def _onward(operator: Operator, own: Doubt | None, before: Doubt | None, entered: bool) -> _Path:
    """Return the path behind an operator: a doubt counts once something before it is mapped."""
    if before is not None and before.level == "stays":
        return _Path(entered, before)
    if own is None:
        return _Path(True, before)
    if own.level == "uncertain":
        return _Path(True, before or _behind(operator, own))
    return _Path(entered, _behind(operator, own) if entered else before)


def _behind(operator: Operator, doubt: Doubt) -> Doubt:
    return Doubt(
        doubt.level, f"lies behind {operator.kind}, and the Edge TPU takes one segment only"
    )


def _worst(doubts: list[Doubt | None]) -> Doubt | None:
    """Return the first sure objection, else the first uncertain one."""
    raised = [doubt for doubt in doubts if doubt is not None]
    sure = [doubt for doubt in raised if doubt.level == "stays"]
    return next(iter(sure + raised), None)
