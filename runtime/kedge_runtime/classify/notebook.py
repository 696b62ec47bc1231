"""Show a result in a notebook: the image, small, and a bar for each class.

The page may be dark or light: text takes its colour from the page, and rails are translucent.
Nothing is fetched: the image is inside the HTML.
"""

import base64
import html
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kedge_runtime.artefact.contract import Geometry
from kedge_runtime.artefact.kinds import Colour
from kedge_runtime.image.decode import read_image
from kedge_runtime.image.geometry import reduction
from kedge_runtime.image.objects import Source
from kedge_runtime.image.opencv import cv2
from kedge_runtime.printable import printable

if TYPE_CHECKING:
    from kedge_runtime.classify.results import Prediction, Result

SIDE = 160  # pixels of the thumbnail's longer side
BAR = "#0072b2"  # readable on black and on white (Okabe and Ito 2008)
FAINT = "rgba(128,128,128,.25)"


def thumbnail(image: Source, colour: Colour) -> bytes:
    """Return an image as a JPEG of at most SIDE pixels a side. Raises ImageError."""
    if isinstance(image, np.ndarray) and image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    pixels = read_image(image, reduction=partial(reduction, Geometry(SIDE, SIDE)))
    height, width = pixels.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    # OpenCV writes BGR.
    ordered = small if colour == "bgr" else cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", ordered)[1].tobytes()


def page(result: "Result") -> str:
    """Return a result as HTML."""
    rows = "".join(_row(prediction) for prediction in result.predictions)
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:16px;align-items:center">'
        f"{''.join(_image(result.thumbnail))}"
        f"<div>{_note(result)}{rows}</div></div>"
    )


def _image(jpeg: bytes | None) -> Iterator[str]:
    if jpeg:
        source = base64.b64encode(jpeg).decode()
        yield f'<img alt="the image" style="margin:0" src="data:image/jpeg;base64,{source}">'


def _note(result: "Result") -> str:
    if not result.unknown:
        return ""
    best = f"{_name(result.best)} {result.best.probability:.1%}"
    return f"<div><b>unknown</b>; the most probable class is {best}</div>"


def _row(prediction: "Prediction") -> str:
    share = min(max(prediction.probability, 0.0), 1.0)
    return (
        '<div style="display:flex;gap:8px;align-items:center">'
        f'<div style="width:120px;height:8px;border-radius:4px;background:{FAINT}">'
        f'<div style="width:{share:.1%};height:8px;border-radius:4px;background:{BAR}"></div></div>'
        '<div style="width:4em;text-align:right;font-variant-numeric:tabular-nums">'
        f"{prediction.probability:.1%}</div><div>{_name(prediction)}</div></div>"
    )


def _name(prediction: "Prediction") -> str:
    return html.escape(printable(prediction.name, 80))
