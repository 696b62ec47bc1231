"""The beginning of a model: what happens to a picture before the first layer with weights.

Two pictures of one colour, black and white, are taken through it. Keras's operations (`x / 255.`,
`preprocess_input`, `x[..., ::-1]`) are no layers of the model, so its graph is followed; a
SavedModel's layers are gone, so its nodes are.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kedge_convert.toolkit import quiet, require
from kedge_runtime.head import Floats

# fmt: off
# What changes the numbers of a pixel, by itself or by constants: Keras's names, TensorFlow's.
_ARITHMETIC = frozenset({
    "Add", "Divide", "Multiply", "Negative", "Normalization", "Rescaling", "Subtract", "TrueDivide",
    "AddV2", "BiasAdd", "Mul", "Neg", "RealDiv", "Sub",
})
# What moves pixels or channels, or does nothing.
_MOVING = frozenset({
    "Cast", "CenterCrop", "Concatenate", "ExpandDims", "Flip", "GetItem", "Identity", "Repeat",
    "Resize", "Resizing", "Reversed", "Split", "Squeeze", "Stack", "Take", "Tile", "Transpose",
    "Unstack",
    "ConcatV2", "GatherV2", "Pack", "ResizeBilinear", "ResizeNearestNeighbor", "ReverseV2",
    "SplitV", "StridedSlice", "Unpack",
})
# The same, of layers alone: operations and nodes that reshape may hold a batch of one.
_MOVING_LAYERS = frozenset({"Cropping2D", "Flatten", "Permute", "Reshape", "UpSampling2D"})
# fmt: on
# Beginnings of the names of layers that hand a picture on unless the model is being trained.
_TRAINING = ("AugMix", "CutMix", "Dropout", "Gaussian", "MixUp", "Rand", "SpatialDropout")
# The side of the pictures where any is taken: no side that a layer would crop or resize to.
_SIDE = 251


@dataclass(frozen=True)
class Step:
    """One operation of a beginning, of Keras or a node of TensorFlow's; `kind`: its class.

    `resizes`: whether its picture has another size than before.
    """

    operation: Any
    kind: str
    resizes: bool = False

    @property
    def name(self) -> str:
        """The operation's name in the model; of a node's path, the last two parts."""
        return "/".join(str(self.operation.name).split("/")[-2:])

    @property
    def is_arithmetic(self) -> bool:
        """Whether it changes a pixel's numbers."""
        return self.kind in _ARITHMETIC


@dataclass(frozen=True)
class Beginning:
    """`steps` in order; `black` and `white`: what becomes of bytes 0 and 255, float32 [h, w, c]."""

    steps: tuple[Step, ...]
    black: Floats
    white: Floats


class _Ended(Exception):  # noqa: N818 - it ends a walk, and is no error
    """The graph has come to a layer that is no part of the beginning; `value` is what it takes."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


def beginning(model: Any) -> Beginning:
    """Follow a Functional or Sequential model from its input [n, h, w, 3] on, into nested ones."""
    steps: list[Step] = []
    try:
        ends = _walk(model, _pictures(model), steps)
    except _Ended as ended:
        ends = ended.value
    black, white = np.asarray(_first_pictures(ends), np.float32)
    return Beginning(tuple(steps), black, white)


def _pictures(model: Any) -> Floats:
    """Return a black and a white picture of the model's size, [2, h, w, 3]."""
    shape = [side or _SIDE for side in model.inputs[0].shape[1:]]
    return np.stack([np.full(shape, value, np.float32) for value in (0, 255)])


def _walk(model: Any, pictures: Any, steps: list[Step]) -> Any:
    """Return what a model makes of `pictures`, adding to `steps`. Raises _Ended."""

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        inner = getattr(operation, "_functional", operation)
        if hasattr(inner, "_run_through_graph"):
            return _walk(inner, args[0], steps)
        taken = _first_pictures((args, kwargs))
        if hasattr(operation, "begin"):
            raise _Ended(_through_nodes(operation, taken, steps))
        given = _run(operation, taken, args, kwargs)
        size = tuple(_first_pictures(given).shape[1:3])
        resizes = size != tuple(taken.shape[1:3])
        steps.append(Step(operation, type(operation).__name__, resizes))
        return given

    inner = getattr(model, "_functional", model)
    return inner._run_through_graph(pictures, lambda each: each, call)


def _through_nodes(layer: Any, pictures: Any, steps: list[Step]) -> Any:
    """Return what a SavedModel's graph (`frozen.py`) makes of `pictures` before its weights."""
    with quiet():
        nodes, given = layer.begin(pictures, _ARITHMETIC | _MOVING)
    steps.extend(Step(node, node.op) for node in nodes)
    return given


def _run(operation: Any, taken: Any, args: Any, kwargs: Any) -> Any:
    """Return what an operation of a beginning gives, out of training. Raises _Ended for another."""
    kind = type(operation).__name__
    if kind.startswith(_TRAINING):
        return taken
    is_layer = isinstance(operation, require("keras").Layer)
    if kind not in _ARITHMETIC | _MOVING and not (is_layer and kind in _MOVING_LAYERS):
        raise _Ended(taken)
    return operation(*args, **kwargs)


def _first_pictures(values: Any) -> Any:
    """Return the first of nested values that is of both pictures, no constant; else nothing."""
    for leaf in require("keras").tree.flatten(values):
        if len(getattr(leaf, "shape", ())) > 1 and leaf.shape[0] == 2:
            return leaf
    return np.zeros((2, 0), np.float32)
