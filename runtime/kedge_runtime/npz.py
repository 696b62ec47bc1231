"""Arrays out of an .npz archive of unknown origin: no pickle, and nothing allocated on its word."""

import io
import math
import re
from typing import Any, NamedTuple

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
        return {name.removesuffix(".npy"): read_array(npy) for name, npy in members.items()}
    except ValueError as error:
        raise ArtefactError(f"{where}: no readable arrays ({error}); convert again") from None


def read_array(npy: bytes) -> NDArray[Any]:
    """Return one array whose header tells of exactly the bytes behind it, else raise ValueError."""
    header = read_header(npy)
    size = len(npy) - header.offset
    if header.size != size:
        raise ValueError(f"{size} bytes for an array of {header.dtype} {header.shape}"[:100])
    count = math.prod(header.shape)
    return np.frombuffer(npy, header.dtype, count, header.offset).reshape(header.shape)


class Header(NamedTuple):
    """What stands before an array's numbers, which begin at `offset` and take `size` bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """The bytes of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(npy: bytes) -> Header:
    """Return the header of an .npy file from its first bytes. Raises ValueError for another one."""
    found = _HEADER.match(npy)
    if found is None:
        raise ValueError("not of version 1.0 of npy, or not of plain numbers")
    shape = tuple(int(side) for side in found[2].split(b",") if side.strip())
    try:
        dtype = np.dtype(found[1].decode())
    except TypeError as error:
        raise ValueError(str(error)) from None
    return Header(dtype, shape, found.end())
