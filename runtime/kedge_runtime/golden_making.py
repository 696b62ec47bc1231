"""Making a golden set: a few images with the answers of the model as it was sealed."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kedge_runtime.artefact import Artefact
from kedge_runtime.classifier import Classifier
from kedge_runtime.content import ModelContent
from kedge_runtime.contract import Contract, Geometry
from kedge_runtime.engines import open_engine
from kedge_runtime.errors import EngineError
from kedge_runtime.geometry import resize
from kedge_runtime.golden import Golden
from kedge_runtime.head import Floats
from kedge_runtime.image import Pixels, read_image
from kedge_runtime.image import Source as ImageSource
from kedge_runtime.verify import exact_outputs, exactly_held, walk

GOLDEN_IMAGES = 3
# Golden pictures stay a little larger than what is cut out of them, so that they test the resize.
GOLDEN_MARGIN = 1.125
GOLDEN_QUALITY = 70


def golden_pictures(
    geometry: Geometry, photos: Sequence[ImageSource], reference: Floats
) -> list[bytes]:
    """Return small JPEGs of the photos that the model is surest of, one per class.

    Sure answers survive quantisation, so that a device which gives another one is at fault.
    """
    # A lone output is held against nothing.
    margins = np.pad(np.sort(reference, axis=1), ((0, 0), (1, 0)))
    order = np.argsort(margins[:, -2] - margins[:, -1], kind="stable")
    firsts = {int(reference[i].argmax()): i for i in reversed(order)}
    chosen = sorted(firsts.values(), key=list(order).index)[:GOLDEN_IMAGES]
    return [_shrunk(read_image(photos[i], geometry.orientation), geometry) for i in chosen]


def _shrunk(pixels: Pixels, geometry: Geometry) -> bytes:
    """Return a small JPEG; what a centre crop would cut away is not carried along."""
    square = _square(pixels) if geometry.fit == "crop" else pixels
    side = max(geometry.height, geometry.width) / geometry.crop_fraction * GOLDEN_MARGIN
    scale = min(1.0, side / min(square.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in square.shape[:2])
    small = resize(square, height, width, "pyramid")
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, GOLDEN_QUALITY])[1].tobytes()


def _square(pixels: Pixels) -> Pixels:
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def inexact(contract: Contract, golden: Golden) -> tuple[str, ...]:
    """Return a note where an integer file has no exact integers to be held against."""
    if golden.exact.size or not exactly_held(contract):
        return ()
    return ("no exact integers: LiteRT's reference kernels lack one of its operators",)


def golden_set(
    content: ModelContent, contract: Contract, pictures: list[bytes], reference: Floats
) -> Golden:
    """Run the exported model on the golden pictures and record what a device must reproduce."""
    artefact = Artefact(content.path, contract, Golden.none(), "")
    engine = open_engine(content)
    walks = [walk(Classifier(artefact, engine), picture) for picture in pictures]
    return Golden(
        images=tuple(pictures),
        pixels=np.stack([step.pixels for step in walks]),
        tensors=np.stack([step.tensor for step in walks]),
        reference=reference,
        recorded=np.stack([step.outputs for step in walks]),
        exact=_exact(content, contract, tuple(pictures)),
        ids=np.array([step.id for step in walks]),
        confidence=np.array([step.confidence for step in walks], np.float32),
    )


def _exact(content: ModelContent, contract: Contract, pictures: tuple[bytes, ...]) -> NDArray[Any]:
    """Return the exact integers, [0, 0] where the reference kernels can't run what others can.

    LiteRT 2.3's lack ELU and version 3 of TILE, which its default kernels have.
    """
    try:
        return exact_outputs(content, contract, pictures)
    except EngineError:
        return np.zeros((0, 0), np.int8)
