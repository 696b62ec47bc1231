"""What can go wrong in the converter beyond the user's mistakes."""

from kedge_runtime.errors import KedgeError


class ConversionError(KedgeError):
    """A toolkit that can't express the model, or that gave an invalid file."""

    exit_code = 1
