"""Small pictures for a page that needs no network: JPEGs in data URIs."""

import base64
from functools import lru_cache
from pathlib import Path

import cv2

from kedge_runtime.errors import ImageError
from kedge_runtime.image import read_image

SIDE = 128  # pixels of the longer side: sharp at 96 on most screens
QUALITY = 70


# Several artefacts flip on the same pictures.
@lru_cache(maxsize=1024)
def thumbnail(path: Path) -> str:
    """Return a picture as a data URI, or "" when it can't be read any more."""
    try:
        pixels = read_image(path)
    except ImageError:
        return ""
    height, width = pixels.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
