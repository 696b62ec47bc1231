"""Proof that a model without its activation, and the activation, are the user's model again."""

from typing import Any

import numpy as np

from kedge_convert.sources.noise import noise
from kedge_convert.toolkit import quiet, require
from kedge_runtime.contract import Output
from kedge_runtime.head import Floats, probabilities

# Probabilities of the same logits, once by Keras and once by numpy, in float32.
TOLERANCE = 1e-4
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
        return np.allclose(given, ours, atol=TOLERANCE, equal_nan=True)
    second = ours[:, 1:]
    by_logit = 1 / (1 + np.exp(-given.astype(np.float64)))
    return any(
        np.allclose(each, second, atol=TOLERANCE, equal_nan=True) for each in (given, by_logit)
    )
