"""From the engine's numbers to answers: activation in float, exactly once, and a stable top-k."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.contract import Activation, Label, Output

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """One class of an answer; `probability` is in 0..1."""

    index: int
    id: str
    name: str
    probability: float


def softmax(logits: Floats) -> Floats:
    """Return probabilities along the last axis; the maximum is taken off against overflow."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def sigmoid(logits: Floats) -> Floats:
    """Return each class's own probability; written with tanh, which can't overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)


ACTIVATIONS: dict[Activation, Callable[[Floats], Floats]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
}


def probabilities(outputs: Floats, output: Output) -> Floats:
    """Return probabilities, [..., classes], of what an engine gave."""
    if output.kind != "logits":
        return outputs
    return ACTIVATIONS[output.activation](outputs / np.float32(output.temperature))


def top_k(values: Floats, labels: tuple[Label, ...], k: int) -> tuple[Prediction, ...]:
    """Return the k most probable classes of [classes]; ties go to the lower index."""
    order = np.argsort(-values, kind="stable")[:k]
    return tuple(Prediction(int(i), labels[i].id, labels[i].name, float(values[i])) for i in order)
