"""The golden set: a few pictures with the float original's answers, carried by the artefact.

With it a device proves, without TensorFlow, that its decoder, its preprocessing and its engine give
what the converter saw.
"""

import io
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.errors import ArtefactError


@dataclass(frozen=True)
class Golden:
    """`images`: n encoded pictures; the arrays hold one row per picture.

    `tensors`: uint8 [n, 32], SHA-256 of the preprocessed input's bytes; `reference`: float32
    [n, classes], the float original's logits; `recorded`: float32 [n, classes], this artefact's own
    outputs when it was verified.
    """

    images: tuple[bytes, ...]
    tensors: NDArray[np.uint8]
    reference: NDArray[np.float32]
    recorded: NDArray[np.float32]

    def to_bytes(self) -> bytes:
        """Write an .npz archive; the same set gives the same bytes."""
        file = io.BytesIO()
        arrays = {f"image_{i}": np.frombuffer(b, np.uint8) for i, b in enumerate(self.images)}
        np.savez(
            file,
            allow_pickle=False,
            tensors=self.tensors,
            reference=self.reference,
            recorded=self.recorded,
            **arrays,
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Golden":
        """Read what `to_bytes` wrote. Raises ArtefactError when it is anything else."""
        try:
            with zipfile.ZipFile(io.BytesIO(content)):
                arrays = np.load(io.BytesIO(content), allow_pickle=False)
                count = len(arrays["tensors"])
                images = tuple(arrays[f"image_{i}"].tobytes() for i in range(count))
                rows = [arrays[name] for name in ("tensors", "reference", "recorded")]
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ArtefactError(f"the golden set is damaged ({error}); convert again") from None
        return cls(images, *rows)
