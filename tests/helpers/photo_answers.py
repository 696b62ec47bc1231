"""What this machine makes of photos: the digest of every input tensor, and the network's integers.

    python photo_answers.py ARTEFACT.tflite FOLDER OUT.npz COUNT

`test_arm64.py` runs it on both sides of an emulator, so it imports the device install alone. The
first COUNT pictures go through the network too.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.artefact.kinds import Fit, Resize
from kedge_runtime.engines.choice import EngineOptions, Kernels, open_engine
from kedge_runtime.image.preprocessing import Preprocessor

# Those of integer arithmetic alone (docs/preprocessing.md says why `area` is not among them), with
# each fit: the zoo's way, another, and Keras's.
WAYS: tuple[tuple[Resize, Fit], ...] = (
    ("pyramid", "crop"),
    ("bilinear", "letterbox"),
    ("nearest", "stretch"),
)
KERNELS: tuple[Kernels, ...] = ("default", "reference")


def main(artefact: Path, photos: Sequence[Path], out: Path, count: int) -> None:
    """Write `out`: `pixels` [n, 32], `tensors` [n, ways, 32], and [count, classes] per kernels."""
    own = Preprocessor(read_artefact(artefact).contract.input)
    ways = [_bent(own, *way) for way in WAYS]
    pictures = list(map(own.read, photos))
    inputs = list(map(own.tensor, pictures[:count]))
    found: dict[str, list[Any]] = {
        "pixels": list(map(_digest, pictures)),
        "tensors": [[_digest(way.tensor(pixels)) for way in ways] for pixels in pictures],
    }
    for kernels in KERNELS:
        engine = open_engine(read_content(artefact), EngineOptions(threads=1, kernels=kernels))
        found[kernels] = [engine.run(tensor).reshape(-1) for tensor in inputs]
    arrays: dict[str, Any] = {name: np.array(rows) for name, rows in found.items()}
    np.savez(out, **arrays)


def _bent(plan: Preprocessor, resize: Resize, fit: Fit) -> Preprocessor:
    geometry = replace(plan.spec.geometry, resize=resize, fit=fit)
    return Preprocessor(replace(plan.spec, geometry=geometry))


def _digest(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.frombuffer(hashlib.sha256(array.tobytes()).digest(), np.uint8)


if __name__ == "__main__":
    artefact, folder, out, count = sys.argv[1:]
    main(Path(artefact), sorted(Path(folder).iterdir()), Path(out), int(count))
