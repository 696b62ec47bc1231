"""The command `kedge`. Commands are loaded when they are called: a device never imports the
converter, and `--help` imports nothing but click.
"""

import os
import sys
from importlib import import_module
from typing import Any

import click

from kedge_runtime import __version__
from kedge_runtime.exits import BugError, exit_code, threads_in_one_line
from kedge_runtime.output import OutputStream, outputs, say

# Name -> where it is, and the line that `kedge --help` shows.
COMMANDS = {
    "models": ("kedge_models.command:models", "List the Keras applications that kedge knows."),
    "convert": (
        "kedge_convert.commands.convert:convert",
        "Make verified TFLite and ONNX artefacts.",
    ),
    "seal": ("kedge_runtime.commands.seal:command", "Make a foreign model file an artefact."),
    "classify": ("kedge_runtime.commands.classify:classify", "Name what is in pictures."),
    "verify": ("kedge_runtime.commands.verify:command", "Check an artefact on this machine."),
    "sign": ("kedge_runtime.commands.sign:sign", "Sign a sealed file."),
    "keygen": ("kedge_runtime.commands.sign:keygen", "Make a pair of keys for signatures."),
    "drift": ("kedge_runtime.commands.drift:drift", "Tell how far artefacts have drifted."),
    "build": ("kedge_convert.commands.build:build", "Build a matrix with gates, for CI."),
    "inspect": ("kedge_convert.commands.inspect:command", "Show what is inside an artefact."),
    "bench": ("kedge_runtime.commands.bench:bench", "Time every step of a classification."),
    "fit-input": (
        "kedge_convert.commands.fit_input:command",
        "Find the preprocessing that a model was trained with.",
    ),
    "doctor": ("kedge_runtime.commands.doctor:doctor", "Tell what this machine can run."),
}

# What answers ends when nobody reads on; the exit code of the others is a verdict.
ANSWERING = frozenset({"classify", "models"})


class LazyGroup(click.Group):
    """A group that imports a command only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None for an unknown one."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and say whether it goes on when nobody reads what it prints."""
        found = super().resolve_command(ctx, args)
        if ctx.obj is not None:
            ctx.obj.goes_on = found[0] not in ANSWERING
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises BugError for what click would take for Ctrl-D or a closed pipe:
        it has other exit codes for these.
        """
        try:
            return super().invoke(ctx)
        except (EOFError, OSError) as error:
            raise BugError from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kedge")
def kedge() -> None:
    """Carry Keras image classifiers to the edge, and prove that they arrived.

    Exit codes: 0 passed, 1 a gate failed, 2 usage error, 3 inconclusive, 70 a bug in kedge.
    """


def main() -> None:
    """Run the command line. Every end but the answer's is one line on stderr and an exit code."""
    _hold_descriptors()
    if sys.stdout is None:
        say("stdout is closed; send it to a file or to /dev/null")
        sys.exit(2)
    try:
        with outputs() as printed, threads_in_one_line():
            code = _run(printed)
    except Exception as error:  # the end of what is printed can't be written
        code = exit_code(error)
    sys.exit(code)


def _hold_descriptors() -> None:
    """Open what the caller closed of the first three, lest a model's file takes its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _run(printed: OutputStream | None) -> int:
    """Return the exit code of the command that was called."""
    try:
        code: int = kedge.main(prog_name="kedge", standalone_mode=False, obj=printed)
    except Exception as error:
        return exit_code(error)
    return code


if __name__ == "__main__":
    main()
