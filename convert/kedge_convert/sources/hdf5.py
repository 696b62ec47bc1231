"""HDF5 files, told by what they begin with."""

from pathlib import Path

# https://docs.hdfgroup.org/hdf5/v1_14/_f_m_t3.html, superblock
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Whether a path is an HDF5 file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE
