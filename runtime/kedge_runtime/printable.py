"""Names from files, made safe to print.

A label, a file name or a layer name can hold escape codes, newlines and commands for a CI system.
On a terminal and in a log they would act; here they become visible escapes such as `\\x1b`.
"""

import re

# Characters of a message, and of a word in it, at most: what is longer loses its middle. The
# longest of kedge, which asks for all that is missing, has 600.
LIMIT, WORD = 1000, 250
_LONG_WORD = re.compile(rf"\S{{{WORD + 1},}}")
# Categories of Unicode: control, format (bidi marks, zero width), surrogate (bytes of a name that
# are no UTF-8, PEP 383), line and paragraph separators. https://www.unicode.org/reports/tr44/#General_Category_Values
_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Emoji and Persian words are joined by them.
_JOINERS = frozenset("\u200c\u200d")
# GitHub runs `::error::` at the start of a line, blanks before it or not, and `##[error]`, as Azure
# `##vso[...]` and TeamCity `##teamcity[...]`, anywhere in it.
COMMAND = re.compile(r"(?m)^(\s*):(?=:)|#(?=#\w*\[)")


def printable(text: object, limit: int | None = None) -> str:
    """Return a name or a message as one line without effect on a terminal or a CI system.

    Letters, signs and emoji of all languages stay. Applying it twice changes nothing more.
    `limit`: the characters to keep; an ellipsis replaces the middle of a longer text.
    """
    said = str(text)
    if not said.isprintable():
        said = "".join(_shown(said, place) for place in range(len(said)))
    return shortened(without_commands(said), limit)


def message(text: object) -> str:
    """Return a message as a printable line of bounded length."""
    words = _LONG_WORD.sub(lambda found: shortened(found[0], WORD), printable(text))
    return shortened(words, LIMIT)


def without_commands(text: str) -> str:
    """Return a text in which no line is a command for a CI system."""
    return COMMAND.sub(lambda found: f"{found[1] or ''}\\x{ord(found[0][-1]):02x}", text)


def shortened(text: str, limit: int | None) -> str:
    """Return a text in at most `limit` characters: both ends with an ellipsis between them."""
    if limit is None or len(text) <= limit:
        return text
    end = limit // 2
    return f"{text[: limit - end - 1]}…{text[-end:]}"


def is_printable(text: str) -> bool:
    """Whether a name can be printed as it is."""
    return text.isprintable() or not any(_is_escaped(text, place) for place in range(len(text)))


def _shown(text: str, place: int) -> str:
    sign = text[place]
    return sign.encode("unicode_escape").decode() if _is_escaped(text, place) else sign


def _is_escaped(text: str, place: int) -> bool:
    import unicodedata  # a megabyte that plain names do without

    if unicodedata.category(text[place]) not in _ESCAPED:
        return False
    return text[place] not in _JOINERS or not _joins(text, place)


def _joins(text: str, place: int) -> bool:
    """Whether a joiner stands between two signs that are neither ASCII nor escaped themselves."""
    sides = text[max(place - 1, 0) : place], text[place + 1 : place + 2]
    return all(
        side and not side.isascii() and (side.isprintable() or not _is_escaped(side, 0))
        for side in sides
    )
