"""What can go wrong in the converter beyond the user's mistakes."""

from kedge_runtime.errors import KedgeError


class ConversionError(KedgeError):
    """A toolkit that can't express the model, or that gave an invalid file."""

    exit_code = 1


def one_line(error: Exception, length: int = 200) -> str:
    """Return an exception's message in one line, or its type where it has none."""
    text = " ".join(str(error).split()) or repr(error)
    return text if len(text) <= length else text[: length - 3] + "..."


def counted(number: int, noun: str) -> str:
    """Return e.g. `1 picture` or `2 pictures`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
