"""How a camera was held, as EXIF has it: kedge's own reading, where OpenCV's differs by version."""

import struct

# CIPA DC-008 (EXIF 2.32): a TIFF file, in which tag 0x0112 of the first folder is the orientation.
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION = 0x0112


def orientation(exif: bytes) -> int:
    """Return how pixels are stored, 1 (upright) to 8; 1 where EXIF is damaged or doesn't say."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = _ORDERS.get(tiff[:4])
    try:
        found = _entry(tiff, order) if order else 1
    except struct.error:
        # The picture beside it is whole, and a decoder doesn't refuse it, either.
        return 1
    return found if 1 <= found <= 8 else 1


def _entry(tiff: bytes, order: str) -> int:
    (at,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, at)
    for place in range(at + 2, at + 2 + 12 * count, 12):
        tag, value = struct.unpack_from(f"{order}H6xH", tiff, place)
        if tag == _ORIENTATION:
            return int(value)
    return 1
