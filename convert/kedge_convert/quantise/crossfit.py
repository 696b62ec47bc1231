"""Measure int8's noise on all calibration images as on images that no weights were fitted to.

Weights are fitted to most of these images, where their noise is too small. How much, two more
preparations tell: each is fitted to one half of the images, and both halves are measured.
"""

import math
from dataclasses import dataclass

import numpy as np

from kedge_convert.images import Tick
from kedge_convert.prepare import preparation
from kedge_convert.prepare.graph import Graph
from kedge_convert.prepare.preparation import Rounding
from kedge_convert.prepare.running import simulate
from kedge_convert.quantise import candidates
from kedge_convert.quantise.budget import LogitNoise, label_noise, noise
from kedge_convert.quantise.candidates import CandidateModels
from kedge_convert.quantise.comparing import Candidate
from kedge_convert.targets import Target
from kedge_runtime.arrays import Floats


@dataclass(frozen=True)
class CrossFit:
    """The float model's logits on the preparation images, [n, classes].

    `ratio`: of prepared weights' noise on other images to that on these.
    """

    logits: Floats
    ratio: float

    def noise(self, target: Target, models: CandidateModels, candidate: Candidate) -> LogitNoise:
        """Return a candidate's noise on all calibration images, as it is on others.

        Nothing was fitted to the selection images: their noise is taken as it is.
        """
        own = label_noise if models.stock.output.multi_label else noise
        fitted = candidates.answers(
            target,
            models.by_method(candidate.recipe.method, target.format),
            candidate.content,
            models.images,
            models.images.preparation,
        )
        ratio = self.ratio if candidate.recipe.method == "prepared" else 1.0
        values = ratio * own(self.logits, fitted).values
        return LogitNoise(np.append(values, own(models.logits, candidate.answers).values))


def unfitted_ratio(
    graph: Graph, images: Floats, rounding: Rounding, tick: Tick = lambda: None
) -> float:
    """Return the noise of rounded weights on images that they weren't fitted to, to that on theirs.

    At least 1. `images`: float32 [n, h, w, 3]. `tick`: called twice per node.
    """
    images = images[: preparation.affordable(graph, len(images))]
    halves, own, other = (images[::2], images[1::2]), 0.0, 0.0
    for fitted, left in (halves, halves[::-1]):
        rounded = preparation.round_weights(graph, fitted, rounding, tick)
        own += _noise(graph, rounded, fitted)
        other += _noise(graph, rounded, left)
    return max(1.0, math.sqrt(other / own)) if own else 1.0


def _noise(graph: Graph, rounded: Graph, images: Floats) -> float:
    """Return the mean squared error of the answers, without what all classes share."""
    errors = simulate(rounded, images, integer=True) - simulate(graph, images, integer=False)
    centred = errors - errors.mean(axis=-1, keepdims=True)
    return float(np.square(centred, dtype=np.float64).mean())
