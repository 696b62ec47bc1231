"""Words of a command line with other values: kedge refuses an option that is given twice."""

from collections.abc import Sequence


def instead(words: Sequence[object], option: str, value: object) -> list[object]:
    """Return the words with another value of an option, appended where they have none."""
    if option not in words:
        return [*words, option, value]
    place = list(words).index(option) + 1
    return [*words[:place], value, *words[place + 1 :]]
