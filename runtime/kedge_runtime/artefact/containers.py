"""Add members to a model file and read them back: one module per format, with the same functions.

`read(content)` returns the members by name, `tail(size, members)` what holds them behind a model,
`split(content)` takes them off again, and `with_room(content, old, new)` makes room before the
digest for a signature. `tail` and `split` copy no model: a large one is most of what a program
holds. Both formats end in the same 71 bytes: `sha256:` and the hex digest of every byte before
them. So one rule finds any change in any sealed file, and `head -c -71 FILE | sha256sum` checks it
by hand.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType

from kedge_runtime.artefact import content
from kedge_runtime.artefact.content import DIGEST_BYTES, Part, SealedParts, digest
from kedge_runtime.errors import ArtefactError


class _Modules(Mapping[str, ModuleType]):
    """The module of each format, imported on first use: most devices have files of one format."""

    def __getitem__(self, format: str) -> ModuleType:
        if format not in content.FORMATS:
            raise KeyError(format)
        return import_module(f"{__package__}.{format}")

    def __iter__(self) -> Iterator[str]:
        return iter(content.FORMATS)

    def __len__(self) -> int:
        return len(content.FORMATS)


FORMATS: Mapping[str, ModuleType] = _Modules()


def parts(format: str, model: Part, members: Mapping[str, bytes]) -> SealedParts:
    """Return `model` and, behind it, `members` and 71 bytes: the digest of all bytes before."""
    tail: bytes = FORMATS[format].tail(len(model), members, room=DIGEST_BYTES)[:-DIGEST_BYTES]
    return model, tail + digest(model, tail)


def append(format: str, model: Part, members: Mapping[str, bytes]) -> bytes:
    """Return the `parts` in one, which copies the model."""
    return b"".join(parts(format, model, members))


def with_room(format: str, content: bytes, old: int, new: int) -> bytes:
    """Return a sealed file with `new` zero bytes in the place of the last `old` ones.

    Raises ValueError when the file wasn't sealed with `old` bytes of room.
    """
    changed: bytes = FORMATS[format].with_room(content, old, new)
    return changed


def split(format: str, content: bytes) -> tuple[memoryview, dict[str, bytes]]:
    """Return the model in place, without its seal, and other programs' members behind it.

    Raises ArtefactError for an archive that is damaged or too large, and for bytes that are no
    model.
    """
    try:
        found: tuple[memoryview, dict[str, bytes]] = FORMATS[format].split(content)
    except (KeyError, IndexError, ValueError) as error:
        # Imported here: most files are readable, and each start would pay for it.
        from kedge_runtime.modelfile.unreadable import unreadable

        raise ArtefactError(unreadable(format, content, error)) from None
    return found
