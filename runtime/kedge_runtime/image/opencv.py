"""Import OpenCV without threads for its BLAS. The other modules import it from here."""

import numpy as np  # first: a program's own matrices may need numpy's threads

from kedge_runtime.blas import one_blas_thread

with one_blas_thread():
    import cv2 as cv2

__all__ = ["cv2", "np"]
