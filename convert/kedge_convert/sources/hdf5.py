"""HDF5 files: told by what they begin with, and refused where they read other files."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError

# https://docs.hdfgroup.org/hdf5/v1_14/_f_m_t3.html, superblock
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Whether a path is an HDF5 file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def refuse_links(path: Path, content: bytes | None = None) -> None:
    """Raise UsageError for an HDF5 file that keeps a part of itself in other files.

    HDF5 reads whatever file its links, external arrays and virtual arrays name. `content`: where it
    is a member of the archive at `path`. Raises what h5py does for damaged files.
    """
    h5py = require("h5py")
    with h5py.File(path if content is None else io.BytesIO(content)) as file:
        waiting, seen = [file["/"]], set[int]()
        while waiting:
            for name, item in _linked(path, waiting.pop()):
                if (address := h5py.h5o.get_info(item.id).addr) in seen:
                    continue
                seen.add(address)
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                    raise _elsewhere(path, name)


def _linked(path: Path, group: Any) -> Iterator[tuple[str, Any]]:
    """Yield what lies in a group; soft links, which stay in the file, lead to nothing more."""
    h5py = require("h5py")
    for name in group:
        kind = group.get(name, getlink=True, getclass=True)
        if kind is h5py.ExternalLink:
            raise _elsewhere(path, name)
        if kind is h5py.HardLink:
            yield str(name), group[name]


def _elsewhere(path: Path, name: str) -> UsageError:
    return UsageError(
        f"{path}: keeps {name[:60]!r} in another file, and kedge reads none that a model names: "
        "save it whole, model.save('x.keras')"
    )
