"""Find a classifier's output type, and remove its output activation to reach the logits."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kedge_convert.load.input_stage import noise
from kedge_convert.load.outputs import KINDS, activation_name, producer, remove_activation
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Output
from kedge_runtime.artefact.kinds import Activation, Kind
from kedge_runtime.classify.results import probabilities
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.output import quiet

# Probabilities of the same logits, once by Keras and once by numpy, in float32.
PROOF_TOLERANCE = 1e-4
PROOF_IMAGES = 2


def _array(prediction: Any) -> Floats:
    """Return the one tensor of a prediction, which may be a dictionary of it."""
    (tensor,) = require("keras").tree.flatten(prediction)
    return np.asarray(tensor, np.float32)


def same_predictions(model: Any, bare: Any, output: Output, *, single: bool) -> bool:
    """Whether `bare`, of output type `output`, gives the probabilities of `model` on noise.

    `single`: the model's one number is the probability of the second of two classes, or its logit
    where it lies outside 0..1.
    """
    images = noise(model, PROOF_IMAGES)
    # Called, not `predict`ed: compiling a large model takes longer than two predictions.
    with quiet():
        expected, numbers = (_array(each(images, training=False)) for each in (model, bare))
    ours = probabilities(numbers, output)
    if not single:
        return np.allclose(expected, ours, atol=PROOF_TOLERANCE, equal_nan=True)
    second = ours[:, 1:]
    by_logit = 1 / (1 + np.exp(-expected.astype(np.float64)))
    return any(
        np.allclose(each, second, atol=PROOF_TOLERANCE, equal_nan=True)
        for each in (expected, by_logit)
    )


def two_logits(model: Any) -> Any:
    """Return a model of logits [n, 2] for one of a logit z, [n, 1]: -z/2 and z/2.

    Their softmax is (1 - p, p) with p = sigmoid(z), exactly: halving is exact in binary floats.
    Both halves have the same range, so that both get the same steps as integers.
    """
    keras = require("keras")
    last, value = producer(model.outputs[0])
    # The number may come through a Reshape, a nested model, or an activation of its own.
    if type(last).__name__ != "Dense" or last.activation is not keras.activations.linear:
        last, value = _identity_dense(model), model.outputs[0]
    kernel, *bias = (np.asarray(weight) for weight in last.get_weights())
    config = {**last.get_config(), "units": 2, "activation": "linear"}
    wide = type(last).from_config(config)
    logits = wide(value)
    wide.set_weights([np.concatenate([-each, each], axis=-1) / 2 for each in (kernel, *bias)])
    return keras.Model(model.inputs[0], logits, name=model.name)


def two_probabilities(model: Any) -> Any:
    """Return a model of (1 - p, p), [n, 2], for one of a probability p, [n, 1]."""
    keras = require("keras")
    layer = keras.layers.Dense(2, name=free_name(model, "two_classes"))
    both = layer(model.outputs[0])
    layer.set_weights([np.array([[-1, 1]], np.float32), np.array([1, 0], np.float32)])
    return keras.Model(model.inputs[0], both, name=model.name)


def _identity_dense(model: Any) -> Any:
    """Return a dense layer of one input and one output with a weight of 1."""
    layer = require("keras").layers.Dense(1, use_bias=False, name=free_name(model, "two_classes"))
    layer.build((None, 1))
    layer.set_weights([np.ones((1, 1), np.float32)])
    return layer


def free_name(model: Any, name: str) -> str:
    """Return a name that no layer of a model has."""
    names = {layer.name for layer in model.layers}
    while name in names:
        name += "_"
    return name


# Probabilities in float32 add up to 1 within this.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Head:
    """A model without its output activation; `kind` is the output type of the user's model.

    `output`: the output type of `model`, logits wherever an activation was removed; its tensor is
    not known yet. `single`: the user's model gives one number, of which `model` makes two.
    `certain`: layers or user state the kind; else predictions may contradict it (check_answers).
    """

    model: Any
    kind: Kind
    output: Output
    single: bool = False
    certain: bool = True

    def __str__(self) -> str:
        """Return one line for the user."""
        if self.single:
            return f"{self.kind}, one number: two classes, the second where it is large"
        shape = "x".join(map(str, self.model.outputs[0].shape[1:]))
        what = f"{self.kind}, {shape} {'numbers' if self.kind == 'features' else 'classes'}"
        if self.kind == self.output.kind:
            return what
        return f"{what}; the device computes the {self.kind} in float"


def check_input(model: Any) -> None:
    """Raise UsageError for anything but one image of one or three channels in, one tensor out."""
    _check_counts(model)
    shape = tuple(model.inputs[0].shape)
    if len(shape) == 4 and shape[3] == 4:
        raise UsageError(
            f"takes four channels, {shape}; kedge feeds one (grey) or three: put a Conv2D(4, 1) "
            "before it, with the identity as its weights and 255 as the bias of the fourth"
        )
    if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        raise UsageError(
            f"takes its channels first, {shape}; kedge feeds (n, h, w, {shape[1]}): save "
            f"keras.Sequential([keras.Input((h, w, {shape[1]})), keras.layers.Permute((3, 1, 2)), "
            "model])"
        )
    if len(shape) != 4 or shape[3] not in (1, 3):
        raise UsageError(f"no image classifier: input is {shape}, not (n, h, w, 3) or (n, h, w, 1)")


def _check_counts(model: Any) -> None:
    # A Sequential model without keras.Input has no inputs at all until it is called.
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if len(inputs or ()) != 1 or len(outputs or ()) != 1:
        counts = counted(len(inputs or ()), "input"), counted(len(outputs or ()), "output")
        raise UsageError(
            "no classifier: it needs one keras.Input and one output, not " + " and ".join(counts)
        )


def find(model: Any, declared: Kind | None = None) -> Head:
    """Return the model without its output activation, and its output type.

    Softmax runs in float on the device: as an int8 tensor it would zero every probability below
    1/512. `declared`: the user's `--head`, where the layers leave the type open. Raises UsageError
    where both contradict each other, where neither states a type, and for what is no classifier.
    """
    end = remove_activation(model.outputs[0], {})
    # Built anew in any case: whatever names they had, one tensor in, one out.
    bare = require("keras").Model(model.inputs[0], end.tensor, name=model.name)
    detected = end.kind
    if not end.certain and declared is None:
        detected = _by_predictions(bare) or detected
    kind = _settled(detected, declared, activation_name(model))
    # Without a sigmoid only the user knows: the number may as well be a measurement.
    if bare.outputs[0].shape[1:] == (1,) and (detected == "sigmoid" or declared == "logits"):
        removed = end.removed or declared == "logits"
        return _verified(_two_classes(bare, kind, removed=removed), model)
    _check_shape(bare, kind, declared)
    activation: Activation = "sigmoid" if kind == "sigmoid" else "softmax"
    output = Output("logits" if end.removed else kind, activation=activation)
    head = Head(bare, kind, output, certain=end.certain or declared is not None)
    return _verified(head, model) if end.removed else head


def _two_classes(bare: Any, kind: Kind, *, removed: bool) -> Head:
    """Return the head of one number: a logit where its sigmoid is removed, else a probability."""
    if removed:
        return Head(two_logits(bare), kind, Output("logits"), single=True)
    return Head(two_probabilities(bare), kind, Output("softmax"), single=True)


def _verified(head: Head, model: Any) -> Head:
    """Return the head. Raises UsageError where its predictions differ from the user's model's."""
    if not same_predictions(model, head.model, head.output, single=head.single):
        raise UsageError(
            f"removing the final activation, {head.kind}, changes the predictions: end the model "
            "in a plain Dense layer with that activation"
        )
    return head


def check_answers(answers: Floats, output: Output, *, certain: bool = True) -> None:
    """Raise UsageError when the float model's outputs, [images, numbers], contradict their type.

    Layers state every activation but one inside a layer of the user's own, or a graph's; so logits
    that are not `certain` must not look like a sigmoid's.
    """
    if output.kind in ("softmax", "sigmoid") and _outside(answers):
        raise UsageError(
            f"its outputs are not probabilities: they range from {answers.min():.3g} to "
            f"{answers.max():.3g}; give --head logits or features, or end it in a softmax layer"
        )
    if output.kind == "softmax" and not _sums_to_one(answers):
        raise UsageError(
            f"its outputs are not a softmax's: they add up to {answers.sum(axis=1).max():.3g}"
            "; give --head sigmoid, or end it in a softmax layer"
        )
    if output.kind in ("logits", "sigmoid") and not _outside(answers) and _sums_to_one(answers):
        raise UsageError(
            f"its outputs are probabilities that add up to 1 on every image, not {output.kind}: "
            "give --head softmax, or end it in a softmax layer or in logits"
        )
    if output.kind == "logits" and not certain and _like_sigmoids(answers):
        raise UsageError(
            f"its outputs on {len(answers)} images all lie between 0 and 1, as a sigmoid's do, and "
            "its layers leave the type open: give --head sigmoid, or --head logits to insist"
        )


def _like_sigmoids(answers: Floats) -> bool:
    """Whether all lie within 0..1 and differ; equal outputs on every image are another fault."""
    within = answers.min() >= 0 and answers.max() <= 1
    return bool(within and np.ptp(answers, axis=0).max() > TOLERANCE)


def _outside(answers: Floats) -> bool:
    return bool(answers.min() < -TOLERANCE or answers.max() > 1 + TOLERANCE)


def _sums_to_one(answers: Floats) -> bool:
    return bool(abs(answers.sum(axis=-1) - 1).max() < TOLERANCE)


def _settled(detected: Kind | None, declared: Kind | None, activation: str) -> Kind:
    """Return the output type. Raises UsageError where layers and user contradict each other."""
    if declared is None:
        if detected is None:
            raise UsageError(
                f"its last activation is {activation}; allowed are {', '.join(KINDS)}: end the "
                "model in one of these, or give its output type with --head"
            )
        return detected
    if detected in ("softmax", "sigmoid") and detected != declared:
        raise UsageError(f"ends in {detected}, which contradicts --head {declared}")
    return declared


def _check_shape(model: Any, kind: Kind, declared: Kind | None) -> None:
    shape = tuple(model.outputs[0].shape)
    # The trunk of a detector or of a segmentation ends so, too.
    if kind == "features" and len(shape) == 4 and declared is None:
        raise UsageError(
            f"gives a map, {shape}, not one output for each image: give --head features to take "
            "its numbers as they are, or end it in GlobalAveragePooling2D"
        )
    if kind == "features":
        if None in shape[1:] or len(shape) not in (2, 4) or shape[1:] == (1,):
            raise UsageError(f"features are {shape}, not (n, 2 or more) or (n, h, w, d)")
    elif shape == (None, 1):
        raise UsageError(
            "gives one number: give --head logits where its sigmoid distinguishes two classes"
        )
    elif len(shape) != 2 or shape[1] is None or shape[1] < 2:
        raise UsageError(
            f"no classifier: output is {shape}, not (n, two or more classes); "
            "a model without its top needs --head features"
        )


def _by_predictions(model: Any) -> Kind | None:
    """Return `softmax` when the outputs on noise are probabilities that add up to 1."""
    if len(model.outputs[0].shape) != 2 or None in model.inputs[0].shape[1:]:
        return None
    answers = np.asarray(model.predict_on_batch(noise(model, 8)))
    return None if _outside(answers) or not _sums_to_one(answers) else "softmax"
