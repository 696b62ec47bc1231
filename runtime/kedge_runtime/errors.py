"""What can go wrong that is not our bug: one class per cause, one line per message.

A message says what came, what is allowed and what to do. The command line prints it and exits with
`exit_code`; anything else that is raised is a bug and keeps its traceback.
"""

import re

# What turns colours of a terminal on and off: https://ecma-international.org/ecma-48, CSI.
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class KedgeError(Exception):
    """The root of every error that a user, and not a developer, can mend."""

    exit_code = 2


class UsageError(KedgeError):
    """An option, a folder or a combination of them that can't be right."""


class ImageError(KedgeError):
    """A picture that can't be read: missing, empty, truncated, too large, or no picture at all."""


class ContractError(KedgeError):
    """A record (contract, card) that breaks its own schema."""


class ArtefactError(KedgeError):
    """A model file that is missing, damaged, edited after sealing, or carries no contract."""


class SignatureError(ArtefactError):
    """A file without the signature that is demanded of it, or with one that doesn't hold."""


class EngineError(KedgeError):
    """An inference engine that is missing, or that refuses the model."""


class DiedError(EngineError):
    """An engine whose process ended, hung or took too much: the file's fault, or the engine's."""

    exit_code = 1


class LostError(KedgeError):
    """Work that ended each process or worker that was at it; the message says how many."""


def one_line(error: Exception, length: int = 200) -> str:
    """Return an exception's message in one line without colours, or its type where it has none."""
    text = " ".join(_COLOUR.sub("", str(error)).split()) or repr(error)
    return text if len(text) <= length else text[: length - 3] + "..."


def counted(number: int, noun: str) -> str:
    """Return e.g. `1 picture` or `2 pictures`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def reason_of(error: OSError) -> str:
    """Return what the system says against a file, e.g. `permission denied`, without its path."""
    return (error.strerror or str(error)).lower()
