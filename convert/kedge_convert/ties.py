"""Near ties: images on which the float model's two best classes lie closer than int8 can tell.

All of a file's logits share 256 steps. Where the two best lie less than one step apart, rounding
alone decides, whatever the rest of the file does.
"""

from dataclasses import dataclass

import numpy as np

from kedge_runtime.drift.intervals import wilson
from kedge_runtime.head import Floats

STEPS = 255


@dataclass(frozen=True)
class Clear:
    """The agreement in the best class on the `images` that are no near ties.

    `step`: the least difference of the float model's two best logits on these, one step of an
    8-bit output. `agreement` is None where there are no such images. `interval`: the 95 % interval
    of it (Wilson's).
    """

    images: int
    step: float
    agreement: float | None
    interval: tuple[float, float]

    def holds(self, least: float) -> bool:
        """Whether the agreement reaches `least`, or its interval leaves that open."""
        return self.interval[1] >= least


def clear(reference: Floats, candidate: Floats) -> Clear:
    """Measure the agreement without the near ties of `reference`, [images, classes] both.

    The step comes from the reference alone: a file with too wide a range earns no excuse.
    """
    step = float(max(reference.max(), 0.0) - min(reference.min(), 0.0)) / STEPS
    second, first = np.partition(reference, -2, axis=1)[:, -2:].T
    kept = first - second >= step
    images = int(kept.sum())
    if not images:
        return Clear(0, step, None, (0.0, 1.0))
    same = (reference.argmax(axis=1) == candidate.argmax(axis=1))[kept]
    low, high = wilson(int(same.sum()), images)
    return Clear(images, step, float(same.mean()), (float(low), float(high)))
