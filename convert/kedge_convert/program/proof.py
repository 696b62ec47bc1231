"""Compare an imported model with the program that it was made from."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.output import quiet

# Of the largest answer: sums in another order differ by 3e-6 and less, a wrong operator by more.
TOLERANCE = 1e-5


def is_same(
    content: ModelContent, model: Any, tensors: Iterable[Floats], planar: bool = False
) -> bool:
    """Whether a model gives the program's answers to tensors, float32 [1, h, w, c] each.

    `planar`: whether the program takes [1, c, h, w]. Raises EngineError and ArtefactError for a
    program that does not run.
    """
    images = list(tensors)
    with quiet():
        engine = open_engine(content)
        theirs = np.stack([_flat(engine.run(_planar(each) if planar else each)) for each in images])
        ours = np.asarray(model(np.concatenate(images), training=False), np.float32)
    ours = ours.reshape(theirs.shape)
    # Written so that a NaN fails.
    return bool(np.abs(theirs - ours).max() <= TOLERANCE * np.abs(theirs).max())


def noise(shape: tuple[int, ...], count: int) -> Iterator[Floats]:
    """Yield seeded noise for an input of an unknown range: float32 [1, h, w, c], in turns.

    Of bytes, 0 to 255, and of -1 to 1.
    """
    rng = np.random.default_rng(0)
    for i in range(count):
        values = rng.integers(0, 256, (1, *shape)) if i % 2 else rng.uniform(-1, 1, (1, *shape))
        yield values.astype(np.float32)


def _planar(images: Floats) -> Floats:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _flat(answers: Any) -> Floats:
    return np.asarray(answers, np.float32).reshape(-1)
