"""One of several signatures or outputs, as the user or convention says."""

from collections.abc import Sequence

from kedge_runtime.errors import UsageError


def chosen(
    where: str, what: str, names: Sequence[str], asked: str | None, preferred: Sequence[str] = ()
) -> int:
    """Return the index of the name that was `asked` for, or else of the only or a preferred one.

    `what` is the option's name, `output` or `signature`; an index may be asked for, too. Raises
    UsageError that lists the names.
    """
    listed = f"its {what}s are {', '.join(names)}"
    if asked is not None:
        if asked in names:
            return list(names).index(asked)
        if asked.isdecimal() and int(asked) < len(names):
            return int(asked)
        raise UsageError(f"--{what} {asked}: {where} has no such {what}; {listed}")
    if len(names) == 1:
        return 0
    for name in preferred:
        if name in names:
            return list(names).index(name)
    raise UsageError(f"{where}: {listed}: name one with --{what}, such as --{what} {names[0]}")
