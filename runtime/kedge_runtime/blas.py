"""Load libraries without threads for BLAS, the multiplication of matrices.

OpenBLAS starts them when it is loaded, and each spins until it finds that it has no work: 20 ms of
CPU time. numpy and OpenCV bring an OpenBLAS each, and kedge multiplies no matrices on a device.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_THREADS = "OPENBLAS_NUM_THREADS"


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Give what the block imports one BLAS thread each, unless the user has set a number.

    What is imported already keeps its threads, and later imports get theirs.
    """
    if _THREADS in os.environ:
        yield
        return
    os.environ[_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[_THREADS]
