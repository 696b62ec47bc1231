"""Define the golden set: a few images with the float model's outputs.

With it a device verifies, without TensorFlow, that its decoder, its preprocessing and its engine
reproduce the converter's results.
"""

import io
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.errors import ArtefactError, about
from kedge_runtime.frozen import dataclass
from kedge_runtime.modelfile.archives import read_arrays


@dataclass(frozen=True)
class Golden:
    """One row per image, so that each step of a classification can be checked by itself.

    `images`: n encoded images. `pixels`, `tensors`: uint8 [n, 32], SHA-256 of the decoded pixels
    and of the preprocessed input. `reference`: float32 [n, classes], the float model's logits.
    `recorded`: float32 [n, classes], this artefact's own outputs when it was made. `exact`: the
    same as raw integers from the engine's reference kernels, [n, classes], or [0, 0] where the
    engine has none. `ids`: str [n], the label of each top class. `confidence`: float32 [n], its
    probability, 0..1, when `recorded` is scaled to a spread of 1.
    """

    images: tuple[bytes, ...]
    pixels: NDArray[np.uint8]
    tensors: NDArray[np.uint8]
    reference: NDArray[np.float32]
    recorded: NDArray[np.float32]
    exact: NDArray[Any]
    ids: NDArray[np.str_]
    confidence: NDArray[np.float32]

    @classmethod
    def none(cls) -> "Golden":
        """Return an empty set, for files that aren't sealed."""
        digests, rows = np.zeros((0, 32), np.uint8), np.zeros((0, 0), np.float32)
        nothing = np.zeros(0, np.float32)
        return cls((), digests, digests, rows, rows, rows, np.zeros(0, np.str_), nothing)

    def to_bytes(self) -> bytes:
        """Return an .npz archive; the same set gives the same bytes."""
        file = io.BytesIO()
        images = {f"image_{i}": np.frombuffer(b, np.uint8) for i, b in enumerate(self.images)}
        np.savez_compressed(file, **images, **{name: getattr(self, name) for name in _ARRAYS})  # type: ignore[arg-type]
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Golden":
        """Read what `to_bytes` wrote. Raises ArtefactError when it is anything else."""
        with about("the golden set is damaged"):
            arrays = read_arrays(content)
        try:
            fields = [arrays[name] for name in _ARRAYS]
            images = tuple(arrays[f"image_{i}"].tobytes() for i in range(len(arrays["tensors"])))
        except (KeyError, TypeError) as error:
            raise ArtefactError(f"the golden set is damaged ({error}); convert again") from None
        return _check(cls(images, *fields))


_ARRAYS = tuple(field.name for field in fields(Golden) if field.name != "images")
# Name -> numpy's kind and the number of dimensions; a row per image, but for `exact`.
_SHAPES = {
    "pixels": ("u", 2),
    "tensors": ("u", 2),
    "reference": ("f", 2),
    "recorded": ("f", 2),
    "exact": ("iuf", 2),
    "ids": ("U", 1),
    "confidence": ("f", 1),
}


def _check(golden: Golden) -> Golden:
    for name, (kinds, dimensions) in _SHAPES.items():
        array = getattr(golden, name)
        right = array.dtype.kind in kinds and array.ndim == dimensions
        rows = name == "exact" or array.shape[:1] == (len(golden.images),)
        if not (right and rows and (array.dtype.kind != "f" or np.isfinite(array).all())):
            raise ArtefactError(
                f"the golden set is damaged ({name} is {array.dtype} {array.shape}, "
                f"for {len(golden.images)} images); convert again"
            )
    return golden
