"""How many images of a folder calibrate, validate and fit a confidence, and the draw's seed."""

from dataclasses import dataclass

from kedge_runtime.confidence.fit import LEAST_IMAGES
from kedge_runtime.errors import UsageError


@dataclass(frozen=True)
class Sampling:
    """Numbers of calibration and validation (`check`) images, and the seed of the draw.

    `confidence`: the most labelled images that a confidence is fitted to and measured on.
    Raises UsageError where they are too few for one, but not none.
    """

    calibration: int = 200
    check: int = 100
    seed: int = 0
    confidence: int = 500

    def __post_init__(self) -> None:
        """Refuse a number that would fit nothing, without a word."""
        if 0 < self.confidence < LEAST_IMAGES:
            raise UsageError(
                f"--confidence-count {self.confidence}: a confidence takes at least "
                f"{LEAST_IMAGES} images; 0 fits none"
            )
