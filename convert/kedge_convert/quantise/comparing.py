"""Compare candidates image by image: which is closer to the float model, and is it more than luck.

The measure is the divergence of probabilities from the float model's: it is finer than counting
answers, and falls with them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kedge_convert.export.exported import Recipe
from kedge_convert.parity import divergence
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Output

# Of several methods for ranges so many are looked at again. They must win by so many standard
# errors.
RIVALS, MARGIN = 3, 2.0


@dataclass(frozen=True)
class Candidate:
    """An exported, unsealed model.

    `answers`: its logits on the selection images, [images, classes]; `kl`: their divergence from
    the float model's in nats, [images].
    """

    recipe: Recipe
    content: bytes
    answers: Floats
    kl: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @property
    def distances(self) -> NDArray[np.float64]:
        """The roots of the divergences, [images], by which candidates are compared.

        A divergence grows with the square of an error and has a heavy tail: the mean over some
        images is that of a few, and says little on others.
        """
        return roots(self.kl)


def closest_ranges(
    candidates: Iterable[Candidate], confirmed: Callable[[Candidate], NDArray[np.float64]]
) -> Candidate:
    """Return the candidate closest to the float model; the first unless another wins by MARGIN.

    `confirmed`: a candidate's distances on more images, [images].
    """
    first, *others = candidates
    better = (one for one in others if one.distances.mean() < first.distances.mean())
    rivals = sorted(better, key=lambda one: float(one.distances.mean()))[:RIVALS]
    if not rivals:
        return first
    whole = np.append(first.distances, confirmed(first))
    each = [whole - np.append(one.distances, confirmed(one)) for one in rivals]
    winners = [i for i, gain in enumerate(each) if gains(gain, MARGIN)]
    return rivals[max(winners, key=lambda i: float(each[i].mean()))] if winners else first


def gains(gain: NDArray[np.float64], margin: float) -> bool:
    """Whether a gain by image is larger than so many standard errors of its mean."""
    return bool(gain.mean() > margin * gain.std() / np.sqrt(len(gain)))


def divergences(reference: Floats, answers: Floats, output: Output) -> NDArray[np.float64]:
    """Return each image's divergence of answers from the float model's first logits, in nats."""
    pairs = zip(reference, answers, strict=False)
    return np.array([divergence(one[None], other[None], output) for one, other in pairs])


def roots(kl: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the roots of divergences; of equal answers they may lie a rounding below 0."""
    return np.sqrt(np.maximum(kl, 0))
