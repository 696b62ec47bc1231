"""Define the errors that a user can fix: one class per cause, one line per message.

A message says what came, what is allowed and what to do. The command line prints it and exits with
`exit_code`. Any other exception is a bug and keeps its traceback.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

# The name for pip: `kedge` on the package index is somebody else's project.
DISTRIBUTION = "keras-kedge"
# Terminal colour codes: https://ecma-international.org/ecma-48, CSI.
_COLOUR = r"\x1b\[[0-9;]*[A-Za-z]"


class KedgeError(Exception):
    """Base class of the errors that a user, not a developer, can fix.

    `run`: a command to copy, which ends the message; on a terminal it gets lines of its own.
    """

    exit_code = 2

    def __init__(self, message: object = "", *, run: str = "") -> None:
        """Take the message, and the command."""
        super().__init__(f"{message} {run}" if run else str(message))
        self.run = run


class UsageError(KedgeError):
    """An option, a folder or a combination of them that is not allowed."""


class ImageError(KedgeError):
    """An image that can't be read: missing, empty, truncated, too large, or no image at all."""


class ContractError(KedgeError):
    """A record (contract, card, profile) that breaks its schema."""


class ArtefactError(KedgeError):
    """A model file that is missing, damaged, edited after sealing, or carries no contract."""


class SignatureError(ArtefactError):
    """A file without the required signature, or with an invalid one."""


class EngineError(KedgeError):
    """An inference engine that is missing, or that refuses the model."""


class DiedError(EngineError):
    """An engine whose process crashed, hung or exceeded its memory bound."""

    exit_code = 1


class LostError(KedgeError):
    """A task that ended every process or worker which tried it; the message says how many."""


def install(extra: str) -> str:
    """Return the command that adds an extra to the installed kedge."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


@contextmanager
def about(name: object) -> Iterator[None]:
    """Put a name, e.g. a file's, before the message of every KedgeError that the block raises."""
    try:
        yield
    except KedgeError as error:
        named = type(error)(f"{name}: {error}")
        named.run = error.run
        raise named from None


def one_line(error: Exception, length: int = 200) -> str:
    """Return an exception's message in one line without colours, or its type where it has none."""
    text = " ".join(re.sub(_COLOUR, "", str(error)).split()) or repr(error)
    return text if len(text) <= length else text[: length - 3] + "..."


def counted(number: int, noun: str) -> str:
    """Return e.g. `1 image` or `2 000 images`."""
    return f"{number} {noun}" if number == 1 else f"{grouped(number)} {noun}s"


def grouped(number: int) -> str:
    """Return a number in groups of three digits, e.g. `456 718`."""
    return f"{number:,}".replace(",", " ")


def reason_of(error: OSError) -> str:
    """Return the system's reason in lower case without the path, e.g. `permission denied`."""
    return (error.strerror or str(error)).lower()
