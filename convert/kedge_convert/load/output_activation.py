"""Find what a classifier's output is, and where its logits are."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kedge_convert.load.activation_walk import KINDS, origin, undo, word
from kedge_convert.load.inputs import noise
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Activation, Kind, Output
from kedge_runtime.classify.outputs import probabilities
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.output import quiet

# Probabilities of the same logits, once by Keras and once by numpy, in float32.
PROOF_TOLERANCE = 1e-4
PICTURES = 2


def _numbers(answer: Any) -> Floats:
    """Return the one tensor of an answer, which may be a dictionary of it."""
    (tensor,) = require("keras").tree.flatten(answer)
    return np.asarray(tensor, np.float32)


def same_answers(model: Any, bare: Any, output: Output, *, single: bool) -> bool:
    """Whether `bare`, whose numbers are `output`, gives the probabilities of `model` to noise.

    `single`: the model's one number is a probability, or a logit where it isn't within 0..1, of the
    second of two classes.
    """
    pictures = noise(model, PICTURES)
    # Called, not `predict`ed: compiling a large model takes longer than asking it twice.
    with quiet():
        given, numbers = (_numbers(each(pictures, training=False)) for each in (model, bare))
    ours = probabilities(numbers, output)
    if not single:
        return np.allclose(given, ours, atol=PROOF_TOLERANCE, equal_nan=True)
    second = ours[:, 1:]
    by_logit = 1 / (1 + np.exp(-given.astype(np.float64)))
    return any(
        np.allclose(each, second, atol=PROOF_TOLERANCE, equal_nan=True)
        for each in (given, by_logit)
    )


def two_logits(model: Any) -> Any:
    """Return a model of logits [n, 2] for one of a logit z, [n, 1]: -z/2 and z/2.

    Their softmax is (1 - p, p) with p = sigmoid(z), exactly: halving is exact in binary floats.
    Both halves have the same range, so that both get the same steps as integers.
    """
    keras = require("keras")
    last, taken = origin(model.outputs[0])
    # The number may come through a Reshape, a nested model, or an activation of its own.
    if type(last).__name__ != "Dense" or last.activation is not keras.activations.linear:
        last, taken = _passed_on(model), model.outputs[0]
    kernel, *bias = (np.asarray(weight) for weight in last.get_weights())
    config = {**last.get_config(), "units": 2, "activation": "linear"}
    wide = type(last).from_config(config)
    logits = wide(taken)
    wide.set_weights([np.concatenate([-each, each], axis=-1) / 2 for each in (kernel, *bias)])
    return keras.Model(model.inputs[0], logits, name=model.name)


def two_probabilities(model: Any) -> Any:
    """Return a model of (1 - p, p), [n, 2], for one of a probability p, [n, 1]."""
    keras = require("keras")
    layer = keras.layers.Dense(2, name=free_name(model, "two_classes"))
    given = layer(model.outputs[0])
    layer.set_weights([np.array([[-1, 1]], np.float32), np.array([1, 0], np.float32)])
    return keras.Model(model.inputs[0], given, name=model.name)


def _passed_on(model: Any) -> Any:
    """Return a dense layer that gives the one number it takes."""
    layer = require("keras").layers.Dense(1, use_bias=False, name=free_name(model, "two_classes"))
    layer.build((None, 1))
    layer.set_weights([np.ones((1, 1), np.float32)])
    return layer


def free_name(model: Any, name: str) -> str:
    """Return a name that no layer of a model has."""
    taken = {layer.name for layer in model.layers}
    while name in taken:
        name += "_"
    return name


# Probabilities in float32 add up to 1 within this.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Head:
    """`model` ends as `output` says; `kind` is what the user's own model ended in.

    `output.kind` is logits wherever an activation could be taken off; its tensor is not known yet.
    `single`: the user's gave one number, of which `model` makes two.
    `told`: the layers or the user leave no doubt of the kind; else the answers may (check_answers).
    """

    model: Any
    kind: Kind
    output: Output
    single: bool = False
    told: bool = True

    def __str__(self) -> str:
        """Return one line for the user."""
        if self.single:
            return f"{self.kind}, one number: two classes, the second where it is large"
        shape = "x".join(map(str, self.model.outputs[0].shape[1:]))
        what = f"{self.kind}, {shape} {'numbers' if self.kind == 'features' else 'classes'}"
        if self.kind == self.output.kind:
            return what
        return f"{what}; taken off, the device computes it in float"


def check_input(model: Any, name: str) -> None:
    """Raise UsageError for anything but one image of one or three channels in, one tensor out."""
    # A Sequential model without keras.Input has no inputs at all until it is called.
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if len(inputs or ()) != 1 or len(outputs or ()) != 1:
        found = counted(len(inputs or ()), "input"), counted(len(outputs or ()), "output")
        raise UsageError(
            f"{name}: no classifier: it needs one keras.Input and one output, "
            f"not {' and '.join(found)}"
        )
    taken = tuple(model.inputs[0].shape)
    if len(taken) == 4 and taken[3] == 4:
        raise UsageError(
            f"{name}: takes four channels, {taken}; kedge feeds one (grey) or three: put a "
            "Conv2D(4, 1) before it, of the identity's weights, and 255 as the bias of the fourth"
        )
    if len(taken) == 4 and taken[1] in (1, 3) and taken[3] not in (1, 3):
        raise UsageError(
            f"{name}: takes its channels first, {taken}; kedge feeds (n, h, w, {taken[1]}): save "
            f"keras.Sequential([keras.Input((h, w, {taken[1]})), keras.layers.Permute((3, 1, 2)), "
            "model])"
        )
    if len(taken) != 4 or taken[3] not in (1, 3):
        raise UsageError(
            f"{name}: no image classifier: input is {taken}, not (n, h, w, 3) or (n, h, w, 1)"
        )


def find(model: Any, name: str, declared: Kind | None = None) -> Head:
    """Return the model without its last activation, and what its numbers are.

    Softmax runs in float on the device: as an int8 tensor it would zero every probability below
    1/512. `declared` is the user's word (`--head`) where the layers don't tell; raises UsageError
    where they tell otherwise, where nobody tells, and for what is no classifier.
    """
    end = undo(model.outputs[0], {})
    # Built anew even when nothing was taken off: whatever names they had, one tensor in, one out.
    bare = require("keras").Model(model.inputs[0], end.tensor, name=model.name)
    found = end.kind
    if not end.told and declared is None:
        found = _by_numbers(bare) or found
    kind = _settled(name, found, declared, word(model))
    # Without a sigmoid it is the user's to say: the number may as well be a measurement.
    if bare.outputs[0].shape[1:] == (1,) and (found == "sigmoid" or declared == "logits"):
        return _proven(_two_classes(bare, kind, cut=end.cut or declared == "logits"), model, name)
    _check_shape(bare, name, kind, declared)
    activation: Activation = "sigmoid" if kind == "sigmoid" else "softmax"
    output = Output("logits" if end.cut else kind, activation=activation)
    head = Head(bare, kind, output, told=end.told or declared is not None)
    return _proven(head, model, name) if end.cut else head


def _two_classes(bare: Any, kind: Kind, *, cut: bool) -> Head:
    """Return the head of one number: a logit where its sigmoid is `cut`, else a probability."""
    if cut:
        return Head(two_logits(bare), kind, Output("logits"), single=True)
    return Head(two_probabilities(bare), kind, Output("softmax"), single=True)


def _proven(head: Head, model: Any, name: str) -> Head:
    """Return the head; raise UsageError where it answers otherwise than the user's model does."""
    if not same_answers(model, head.model, head.output, single=head.single):
        raise UsageError(
            f"{name}: without its last activation, {head.kind}, it answers otherwise: end it in a "
            "plain Dense layer with that activation"
        )
    return head


def check_answers(answers: Floats, output: Output, name: str, *, told: bool = True) -> None:
    """Raise UsageError when the float original's answers, [images, numbers], aren't of their kind.

    The layers tell of every activation but one inside a layer of the user's own, or a graph's; so
    logits that nobody `told` of mustn't look like a sigmoid's.
    """
    if output.kind in ("softmax", "sigmoid") and _outside(answers):
        raise UsageError(
            f"{name}: its answers are no probabilities: they run from {answers.min():.3g} to "
            f"{answers.max():.3g}; give --head logits or features, or end it in a softmax layer"
        )
    if output.kind == "softmax" and not _sums_to_one(answers):
        raise UsageError(
            f"{name}: its answers are no softmax's: they add up to {answers.sum(axis=1).max():.3g}"
            "; give --head sigmoid, or end it in a softmax layer"
        )
    if output.kind in ("logits", "sigmoid") and not _outside(answers) and _sums_to_one(answers):
        raise UsageError(
            f"{name}: its answers are probabilities that add up to 1 on every picture, not "
            f"{output.kind}: give --head softmax, or end it in a softmax layer or in logits"
        )
    if output.kind == "logits" and not told and _like_sigmoids(answers):
        raise UsageError(
            f"{name}: its answers to {len(answers)} pictures all lie between 0 and 1, as a "
            "sigmoid's do, and its layers don't tell: give --head sigmoid, or --head logits to "
            "insist"
        )


def _like_sigmoids(answers: Floats) -> bool:
    """Whether all lie within 0..1 and differ; the same to every picture is another fault."""
    within = answers.min() >= 0 and answers.max() <= 1
    return bool(within and np.ptp(answers, axis=0).max() > TOLERANCE)


def _outside(answers: Floats) -> bool:
    return bool(answers.min() < -TOLERANCE or answers.max() > 1 + TOLERANCE)


def _sums_to_one(answers: Floats) -> bool:
    return bool(abs(answers.sum(axis=-1) - 1).max() < TOLERANCE)


def _settled(name: str, found: Kind | None, declared: Kind | None, called: str) -> Kind:
    """Return the kind by the model's word and the user's; they must not contradict each other."""
    if declared is None:
        if found is None:
            raise UsageError(
                f"{name}: its last activation is {called}; allowed are {', '.join(KINDS)}: "
                "end it in one of these, or say with --head what its numbers are"
            )
        return found
    if found in ("softmax", "sigmoid") and found != declared:
        raise UsageError(f"{name}: ends in {found}, which contradicts --head {declared}")
    return declared


def _check_shape(model: Any, name: str, kind: Kind, declared: Kind | None) -> None:
    given = tuple(model.outputs[0].shape)
    # The trunk of a detector or of a segmentation ends so, too.
    if kind == "features" and len(given) == 4 and declared is None:
        raise UsageError(
            f"{name}: gives a map, {given}, not one answer for each image: give --head features to "
            "take its numbers as they are, or end it in GlobalAveragePooling2D"
        )
    if kind == "features":
        if None in given[1:] or len(given) not in (2, 4) or given[1:] == (1,):
            raise UsageError(f"{name}: features are {given}, not (n, 2 or more) or (n, h, w, d)")
    elif given == (None, 1):
        raise UsageError(
            f"{name}: gives one number: say --head logits where its sigmoid tells two classes apart"
        )
    elif len(given) != 2 or given[1] is None or given[1] < 2:
        raise UsageError(
            f"{name}: no classifier: output is {given}, not (n, two or more classes); "
            "a model without its top needs --head features"
        )


def _by_numbers(model: Any) -> Kind | None:
    """Return `softmax` when the answers to noise are probabilities that add up to 1."""
    if len(model.outputs[0].shape) != 2 or None in model.inputs[0].shape[1:]:
        return None
    answers = np.asarray(model.predict_on_batch(noise(model, 8)))
    return None if _outside(answers) or not _sums_to_one(answers) else "softmax"
