"""Replace single layers by the same function in operators that a toolkit has.

A rule takes a layer (or a Keras operation) and returns its replacement, or None to leave it.
`lower` applies rules to the flattened graph.

Operators that an accelerator does not support are replaced where the user asks for it. The function
stays the same, but not the rounding of its integer file.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kedge_convert.prepare.graph import trace
from kedge_convert.rewrite.activations import (
    Replacement,
    activation,
    elementwise,
    exponential,
    prelu,
    with_activation,
)
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError


def depthwise(layer: Any) -> Any:
    """Return the DepthwiseConv2D that a Conv2D is, or None."""
    if type(layer).__name__ != "Conv2D" or layer.groups == 1 or not layer.built:
        return None
    kernel, *bias = layer.get_weights()
    height, width, depth, outputs = kernel.shape
    square = layer.strides[0] == layer.strides[1]  # TensorFlow's depthwise has one stride
    if depth != 1 or not square or layer.data_format != "channels_last":
        return None
    same = ("strides", "padding", "dilation_rate", "activation", "use_bias", "name")
    made = require("keras").layers.DepthwiseConv2D(
        (height, width),
        depth_multiplier=outputs // layer.groups,
        **{key: getattr(layer, key) for key in same},
    )
    made.build((None, None, None, layer.groups))
    # Output f of Conv2D is of group f // multiplier, as in [h, w, channel, multiplier].
    made.set_weights([kernel.reshape(height, width, layer.groups, -1), *bias])
    return made


def gelu(layer: Any) -> Replacement | None:
    """Return a layer whose activation is the exact GELU as the linear layer and that, or None."""
    if type(layer).__name__ == "Gelu" and not layer.approximate:
        return Replacement(_gelu)
    return with_activation(layer, {"gelu": _gelu})


def _gelu(value: Any) -> Any:
    ops = require("keras").ops
    return value * 0.5 * (ops.erf(value * math.sqrt(0.5)) + 1.0)


def groups(layer: Any) -> Replacement | None:
    """Return a Conv2D of several groups as slices, convolutions and concatenation, or None."""
    if type(layer).__name__ != "Conv2D" or layer.groups == 1 or not layer.built:
        return None
    if layer.data_format != "channels_last":
        return None
    keras = require("keras")
    kernel, *bias = layer.get_weights()
    parts = zip(*(np.split(each, layer.groups, axis=-1) for each in (kernel, *bias)), strict=True)
    convolutions = [_part(layer, i, list(weights)) for i, weights in enumerate(parts)]

    depth = kernel.shape[2]

    def grouped(value: Any) -> Any:
        pieces = [value[..., i * depth : (i + 1) * depth] for i in range(layer.groups)]
        pairs = zip(convolutions, pieces, strict=True)
        joined = keras.ops.concatenate([each(piece) for each, piece in pairs], axis=-1)
        return layer.activation(joined)

    return Replacement(grouped, tuple(convolutions))


def _part(layer: Any, number: int, weights: list[Any]) -> Any:
    config = layer.get_config()
    changes = {
        "groups": 1,
        "filters": layer.filters // layer.groups,
        "activation": "linear",
        "name": f"{layer.name}_group{number}",
    }
    part = type(layer).from_config({**config, **changes})
    part.build((None, None, None, weights[0].shape[2]))
    part.set_weights(weights)
    return part


def layer_norm(layer: Any) -> Replacement | None:
    """Return a LayerNormalization over the last axis in plain arithmetic, or None.

    Ba et al. 2016, arXiv:1607.06450, as Keras computes it: (x - mean) / sqrt(variance + epsilon).
    """
    if type(layer).__name__ != "LayerNormalization" or not _over_last(layer):
        return None
    ops = require("keras").ops
    # Read here: within a traced function variables have no numbers.
    gamma = np.asarray(layer.gamma) if layer.scale else None
    beta = np.asarray(layer.beta) if layer.center else None

    def norm(value: Any) -> Any:
        centred = value - ops.mean(value, axis=-1, keepdims=True)
        variance = ops.mean(centred * centred, axis=-1, keepdims=True)
        normed = centred * ops.rsqrt(variance + layer.epsilon)
        scaled = normed if gamma is None else normed * gamma
        return scaled if beta is None else scaled + beta

    return Replacement(norm)


def _over_last(layer: Any) -> bool:
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    return layer.built and axes in ([-1], [layer.input_spec.ndim - 1 if layer.input_spec else -1])


LoweringRule = Callable[[Any], Any]

# Better in every format: kernels, delegates and the preparation of weights know the plain layer.
ALWAYS: tuple[LoweringRule, ...] = (depthwise,)
# Layers that TensorFlow's converter writes with numbers that no range holds.
TFLITE: tuple[LoweringRule, ...] = (*ALWAYS, exponential)
# Layers without 16-bit kernels in TFLite (litert/kernels: the registered types).
INT16X8: tuple[LoweringRule, ...] = (*TFLITE, activation, elementwise, prelu, layer_norm)
# Layers that tf2onnx can't convert: Erfc, and the compiled function of a grouped convolution.
TF2ONNX: tuple[LoweringRule, ...] = (*ALWAYS, gelu, groups)


@dataclass(frozen=True)
class Lowered:
    """The rewritten model, or the very same one.

    `notes`: a line for each kind of layer that became several operators.
    """

    model: Any
    notes: tuple[str, ...] = ()


def lower(model: Any, rules: Sequence[LoweringRule] = ALWAYS) -> Lowered:
    """Return a model of the same function in which no rule finds anything to replace."""
    graph = trace(model)
    replacements: dict[int, Any] = {}  # by the layer's id: a shared layer stays shared
    kinds: Counter[str] = Counter()
    nodes = []
    for node in graph.nodes:
        found = _remembered(replacements, rules, node.layer)
        kinds.update([_kind(node.layer)] if found and not _first(ALWAYS, node.layer) else [])
        nodes.append(replace(node, layer=found) if found else node)
    if not any(replacements.values()):
        return Lowered(model)
    notes = tuple(f"{kind} written out in plainer operators ({n}x)" for kind, n in kinds.items())
    return Lowered(graph.with_nodes(nodes).build(), notes)


def _remembered(replacements: dict[int, Any], rules: Sequence[LoweringRule], layer: Any) -> Any:
    if id(layer) not in replacements:
        replacements[id(layer)] = _first(rules, layer)
    return replacements[id(layer)]


def _first(rules: Sequence[LoweringRule], layer: Any) -> Any:
    """Return the replacement by the first rule that applies to `layer`, or None."""
    results = (rule(layer) for rule in rules)
    result = next((each for each in results if each is not None), None)
    return result.as_layer(layer.name) if isinstance(result, Replacement) else result


def _kind(layer: Any) -> str:
    """Return the name for messages: the activation's name, or the layer's class."""
    name = getattr(getattr(layer, "activation", None), "__name__", "linear")
    return type(layer).__name__ if name == "linear" else name


def hard_swish(layer: Any) -> Any:
    """Return x * relu6(x + 3) / 6 as two multiplications and an addition, or None.

    Howard et al. 2019, arXiv:1905.02244, section 5.2. TFLite's HARD_SWISH is one operator, which
    the Edge TPU doesn't have.
    """
    if getattr(getattr(layer, "activation", None), "__name__", "") == "hard_silu":
        return activation(layer)
    return elementwise(layer) if type(layer).__name__ == "HardSilu" else None


# Value of --rewrite -> its rules.
REWRITES: dict[str, tuple[LoweringRule, ...]] = {"hard-swish": (hard_swish,)}


def rewrite(model: Any, names: Sequence[str]) -> Lowered:
    """Return a Keras model of the same function, in the operators that all formats have.

    `names`: keys of REWRITES that are applied too. Raises UsageError for an unknown one.
    """
    if unknown := set(names) - REWRITES.keys():
        allowed = ", ".join(REWRITES)
        raise UsageError(f"--rewrite: got {min(unknown)!r}, allowed are {allowed}")
    return lower(model, [*ALWAYS, *(rule for name in names for rule in REWRITES[name])])
