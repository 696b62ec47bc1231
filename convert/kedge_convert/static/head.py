"""The range of logits: what no probability shows need not be told apart.

An int8 output of a thousand logits spends most of its steps on classes that have no chance. Raising
the low end of the range, which cuts those off, makes finer steps where the answers are.
"""

import numpy as np

from kedge_convert.parity import divergence
from kedge_convert.static.ranges import STEPS, Range
from kedge_runtime.contract import Output
from kedge_runtime.head import Floats

TRIES = 33


def narrowed(one: Range, logits: Floats, output: Output) -> Range:
    """Return the range with the low end that leaves the probabilities nearest to the original's.

    `logits`: the float original's on calibration pictures, [images, classes]. Independent classes,
    probabilities and features keep their range.
    """
    if (output.kind, output.activation) != ("logits", "softmax"):
        return one
    tried = [Range(float(low), one.high) for low in np.linspace(one.low, 0.0, TRIES)]
    return min(tried, key=lambda each: divergence(logits, _held(logits, each), output))


def _held(values: Floats, one: Range) -> Floats:
    """Return the values as an int8 tensor of this range holds them."""
    step = max(one.high - one.low, 1e-12) / STEPS
    zero = np.rint(-one.low / step)
    steps = np.clip(np.rint(values / step) + zero, 0, STEPS) - zero
    return np.asarray(steps * step, np.float32)
