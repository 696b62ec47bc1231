"""Make names from files safe to print.

A label, a file name or a layer name can hold escape codes, newlines and commands for a CI system.
They become visible escapes such as `\\x1b`, which have no effect on a terminal or in a log.
"""

import re

# The maximum length of a message, and of a word in it: longer ones lose their middle. The longest
# message of kedge, which lists all missing options, has 600 characters.
LIMIT, WORD = 1000, 250
_LONG_WORD = rf"\S{{{WORD + 1},}}"
# Categories of Unicode: control, format (bidi marks, zero width), surrogate (bytes of a name that
# are no UTF-8, PEP 383), line and paragraph separators. https://www.unicode.org/reports/tr44/#General_Category_Values
_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Emoji and Persian words need them.
_JOINERS = frozenset("\u200c\u200d")
# GitHub runs `::error::` at the start of a line, after blanks too. `##[error]`, Azure's
# `##vso[...]` and TeamCity's `##teamcity[...]` run anywhere in a line.
COMMAND = r"(?m)^(\s*):(?=:)|#(?=#\w*\[)"


def printable(text: object, limit: int | None = None) -> str:
    """Return a name or a message as one line without effect on a terminal or a CI system.

    Letters, signs and emoji of all languages stay. A second call changes nothing. `limit`: the
    maximum length; an ellipsis replaces the middle of a longer text.
    """
    shown = str(text)
    if not shown.isprintable():
        shown = "".join(_shown(shown, index) for index in range(len(shown)))
    return shortened(without_commands(shown), limit)


def message(text: object) -> str:
    """Return a message as one printable line of bounded length."""
    line = re.sub(_LONG_WORD, lambda match: shortened(match[0], WORD), printable(text))
    return shortened(line, LIMIT)


def without_commands(text: str) -> str:
    """Return a text without commands for a CI system."""
    return re.sub(COMMAND, lambda match: f"{match[1] or ''}\\x{ord(match[0][-1]):02x}", text)


def shortened(text: str, limit: int | None) -> str:
    """Return a text in at most `limit` characters: both ends with an ellipsis between them."""
    if limit is None or len(text) <= limit:
        return text
    end = limit // 2
    return f"{text[: limit - end - 1]}…{text[-end:]}"


def is_printable(text: str) -> bool:
    """Whether a name can be printed as it is."""
    return text.isprintable() or not any(_is_escaped(text, index) for index in range(len(text)))


def _shown(text: str, index: int) -> str:
    sign = text[index]
    return sign.encode("unicode_escape").decode() if _is_escaped(text, index) else sign


def _is_escaped(text: str, index: int) -> bool:
    import unicodedata  # costs a megabyte that plain names don't need

    if unicodedata.category(text[index]) not in _ESCAPED:
        return False
    return text[index] not in _JOINERS or not _joins(text, index)


def _joins(text: str, index: int) -> bool:
    """Whether a joiner stands between two characters that are neither ASCII nor escaped."""
    sides = text[max(index - 1, 0) : index], text[index + 1 : index + 2]
    return all(
        side and not side.isascii() and (side.isprintable() or not _is_escaped(side, 0))
        for side in sides
    )
