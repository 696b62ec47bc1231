"""The output's range: finer steps where probabilities are, found by trying them."""

from dataclasses import replace

import numpy as np
import pytest

from kedge_convert.parity import divergence
from kedge_convert.static.head import narrowed
from kedge_convert.static.ranges import STEPS, Range
from kedge_runtime.contract import Output

LOGITS = np.random.default_rng(4).normal(-4, 2, (40, 300)).astype(np.float32)
LOGITS[np.arange(40), np.arange(40)] = np.random.default_rng(5).uniform(3, 12, 40)
FULL = Range(float(LOGITS.min()), float(LOGITS.max()))


def kl(one: Range) -> float:
    """Return what the range costs, through int8 numbers as an engine would give them."""
    step = (one.high - one.low) / STEPS
    zero = round(-128 - one.low / step)
    integers = np.clip(np.rint(LOGITS / step) + zero, -128, 127).astype(np.int8)
    held = (integers.astype(np.float32) - zero) * np.float32(step)
    return divergence(LOGITS, held, Output("logits"))


def test_probabilities_gain_by_what_is_cut_off() -> None:
    one = narrowed(FULL, LOGITS, Output("logits"))
    assert FULL.low < one.low <= 0
    assert one.high == FULL.high
    assert kl(one) < 0.75 * kl(FULL)


@pytest.mark.parametrize("low", [-12.0, -9.0, -6.0, -3.0, 0.0])
def test_no_other_low_end_is_much_better(low: float) -> None:
    best = narrowed(FULL, LOGITS, Output("logits"))
    assert kl(best) <= 1.05 * kl(replace(FULL, low=low))


@pytest.mark.parametrize(
    "output", [Output("softmax"), Output("features"), Output("logits", activation="sigmoid")]
)
def test_other_outputs_keep_their_range(output: Output) -> None:
    assert narrowed(FULL, LOGITS, output) == FULL
