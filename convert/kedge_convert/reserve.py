"""More validation images, for targets that the first ones leave undecided."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kedge_convert.photos import Photos, tensors, ticking
from kedge_convert.progress import Progress
from kedge_convert.source import Source
from kedge_runtime.head import Floats

FOLD = 4  # times the images that were asked for, at most


@dataclass
class Reserve:
    """The validation images with the float model's logits, [images, classes].

    It grows when a target needs more of them; the next target finds them drawn and answered.
    """

    source: Source
    photos: Photos
    logits: Floats

    def __post_init__(self) -> None:
        """Set the limit of the growth."""
        self._most = FOLD * len(self.photos.check)

    def first(self, count: int, progress: Progress) -> tuple[Sequence[Path], Floats]:
        """Return so many images and their logits, or as many as the folder and FOLD allow."""
        missing = min(count, self._most) - len(self.photos.check)
        if missing > 0 and self.photos.more:
            self._grow(missing, progress)
        return self.photos.check[:count], self.logits[:count]

    def _grow(self, missing: int, progress: Progress) -> None:
        with progress.stage("read more pictures", missing) as tick:
            photos = self.photos.enlarged(missing, tick)
        added = photos.check[len(self.photos.check) :]
        self.photos = photos
        if not added:
            return
        with progress.stage("float original on more pictures", len(added)) as tick:
            logits = self.source.logits(ticking(tensors(added, self.source.input), tick))
        self.logits = np.concatenate([self.logits, logits])
