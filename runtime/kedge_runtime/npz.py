"""Arrays out of an .npz archive of unknown origin: no pickle, and nothing allocated on its word."""

import io
import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.errors import ArtefactError
from kedge_runtime.zips import read_members

Arrays = dict[str, NDArray[Any]]

# What numpy.save writes before an array of booleans, numbers or text, rows first (numpy's NEP 1).
# numpy's own reader evaluates any Python literal there.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<>|]?[biufU]\d{1,6})', "
    rb"'fortran_order': False, 'shape': \(([\d, ]{0,99})\), \} *\n",
    re.DOTALL,
)


def read_arrays(content: bytes, where: str) -> Arrays:
    """Return the arrays by name, read-only. numpy.load would allocate what a header claims.

    Raises ArtefactError, headed by `where`, for anything that numpy.savez doesn't write.
    """
    members = read_members(io.BytesIO(content), where)
    try:
        return {name.removesuffix(".npy"): _array(npy) for name, npy in members.items()}
    except (ValueError, TypeError) as error:
        raise ArtefactError(f"{where}: no readable arrays ({error}); convert again") from None


def _array(npy: bytes) -> NDArray[Any]:
    """Return one array whose header tells of exactly the bytes behind it."""
    header = _HEADER.match(npy)
    if header is None:
        raise ValueError("not of version 1.0 of npy, or not of plain numbers")
    dtype = np.dtype(header[1].decode())
    shape = tuple(int(side) for side in header[2].split(b",") if side.strip())
    size = len(npy) - header.end()
    if math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{size} bytes for an array of {dtype} {shape}"[:100])
    return np.frombuffer(npy, dtype, math.prod(shape), header.end()).reshape(shape)
