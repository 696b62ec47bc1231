"""Write docs/cli.md, the reference of the command line, from the commands: `make cli`.

The commands are imported, as `kedge COMMAND --help` imports them: without TensorFlow.
"""

import argparse
import re
from pathlib import Path

import click

from kedge_runtime.cli import COMMANDS, kedge

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
HEAD = """\
# Command line

This page is generated from the commands by `make cli`; don't edit it. `kedge COMMAND --help` prints
the same.

## Exit codes

| exit code | meaning |
| --: | --- |
| 0 | passed |
| 1 | A file missed its limits or could not be made. It is kept as `*.rejected`; your earlier file stays. `kedge calibrate-check`: the images have a problem. |
| 2 | usage error, in one line |
| 3 | Inconclusive. `kedge drift` and `kedge build`: too few images to decide, or an unsteady latency; the line says how many images would decide. `kedge fit-input`: more than one normalisation is still possible. |
| 70 | A bug in kedge, in one line. Run again with `KEDGE_DEBUG=1` for the traceback, and report it. |

A closed pipe (`| head -1`) does not change the exit code; `kedge classify` then ends with 0. A full
or closed stderr changes nothing either. Control characters in names are printed as escapes
(`\\x1b`, `\\n`, `\\u202e`). `--json` prints one object for machines ([json.md](json.md)).

## Commands

| command | |
| --- | --- |
"""


def reference() -> str:
    """Return the page, in Markdown."""
    with click.Context(kedge, info_name="kedge") as context:
        names = kedge.list_commands(context)
        index = "".join(f"| [`{name}`](#kedge-{name}) | {COMMANDS[name][1]} |\n" for name in names)
        return HEAD + index + "".join(_section(context, name) for name in names)


def _section(parent: click.Context, name: str) -> str:
    """Return a command's heading, its use, what it does, and a table of its options."""
    command = kedge.get_command(parent, name)
    assert command is not None
    with click.Context(command, info_name=name, parent=parent) as context:
        rows = [
            _row(*record)
            for parameter in command.get_params(context)
            if (record := parameter.get_help_record(context)) and record[1]
            if "--help" not in parameter.opts
        ]
        use = command.get_usage(context).removeprefix("Usage: ")
        table = "| option | |\n| --- | --- |\n" + "".join(rows)
        return f"\n## kedge {name}\n\n```text\n{_join(use)}\n```\n\n{_help(command)}\n\n{table}"


def _help(command: click.Command) -> str:
    """Return the command's text, a paragraph a line, without click's mark for fixed lines."""
    paragraphs = (command.help or "").replace("\b\n", "").split("\n\n")
    return "\n\n".join(_escape(_join(paragraph)) for paragraph in paragraphs)


def _row(option: str, meaning: str) -> str:
    return f"| `{_join(option).replace('|', chr(92) + '|')}` | {_escape(_join(meaning))} |\n"


def _join(text: str) -> str:
    return " ".join(text.split())


def _escape(text: str) -> str:
    """Return a text whose signs mean themselves in Markdown, but for code spans."""
    return re.sub(r"`[^`]*`|[\\|*<]", lambda found: _as_code(found[0]), text)


def _as_code(found: str) -> str:
    return found if found.startswith("`") else f"\\{found}"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(reference(), encoding="utf-8")
