"""Run the command `kedge`.

Each command is imported when it is called: a device never imports the converter, and `--help`
imports only click.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge_runtime import __version__
from kedge_runtime.blas import one_blas_thread
from kedge_runtime.errors import UsageError
from kedge_runtime.exits import BugError, exit_code, thread_errors_in_one_line
from kedge_runtime.output import OutputStream, outputs, say
from kedge_runtime.terminal import VERBOSITY, columns, is_coloured

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# Name -> its module and function, and the line that `kedge --help` shows.
COMMANDS = {
    "models": ("kedge_models.cards:models", "List the Keras models that have a card."),
    "convert": (
        "kedge_convert.commands.convert:convert",
        "Convert a Keras model to verified TFLite and ONNX artefacts.",
    ),
    "seal": (
        "kedge_runtime.commands.seal:command",
        "Turn another tool's model file into an artefact.",
    ),
    "classify": ("kedge_runtime.commands.classify:classify", "Classify images."),
    "watch": (
        "kedge_runtime.commands.watch:watch",
        "Classify the frames of a camera or a video.",
    ),
    "serve": (
        "kedge_runtime.commands.serve:serve",
        "Serve a page with the live stream, and classify images by HTTP.",
    ),
    "verify": ("kedge_runtime.commands.verify:command", "Verify an artefact on this machine."),
    "fetch": (
        "kedge_runtime.commands.fetch:command",
        "Fetch a newer artefact for a device that runs.",
    ),
    "sign": ("kedge_runtime.commands.sign:sign", "Sign an artefact."),
    "keygen": ("kedge_runtime.commands.sign:keygen", "Create a key pair for signatures."),
    "calibrate": (
        "kedge_runtime.commands.calibrate:calibrate",
        "Fit an artefact's confidence to labelled images.",
    ),
    "drift": (
        "kedge_runtime.commands.drift:drift",
        "Measure the accuracy drift of artefacts against the float model.",
    ),
    "init": (
        "kedge_convert.commands.init:command",
        "Write a commented kedge.toml for a model and a folder of images.",
    ),
    "build": (
        "kedge_convert.commands.build:build",
        "Build and gate a matrix of artefacts, for CI.",
    ),
    "inspect": ("kedge_convert.commands.inspect:command", "Show the contents of a model file."),
    "bench": ("kedge_runtime.commands.bench:bench", "Time each step of a classification."),
    "fit-input": (
        "kedge_convert.commands.fit_input:command",
        "Find the preprocessing that a model was trained with.",
    ),
    "calibrate-check": (
        "kedge_convert.commands.calibrate_check:command",
        "Check a folder of calibration images.",
    ),
    "doctor": ("kedge_runtime.commands.doctor:doctor", "Check this machine and suggest fixes."),
    "completion": (
        "kedge_runtime.commands.completion:completion",
        "Print the completion script of a shell.",
    ),
}

HELP_WIDTH = 100
# These multiply no matrices, so they start no threads for that.
WITHOUT_MATRICES = frozenset({"classify", "verify", "bench"})
# These stop when stdout is closed early. The others go on: their exit code is a verdict.
STOPS_WITHOUT_READER = frozenset({"classify", "models", "watch"})


class LazyGroup(click.Group):
    """A group that imports a command only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None for an unknown one."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        with one_blas_thread() if cmd_name in WITHOUT_MATRICES else nullcontext():
            command: click.Command = getattr(import_module(module), name)
        if QUIET not in command.params:
            command.add_help_option = False
            command.params += [QUIET, VERBOSE, HELP]
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Return the commands and options that start with a word, without importing any."""
        from click.shell_completion import CompletionItem  # few calls complete

        lines = [(name, line) for name, (_, line) in COMMANDS.items()]
        items = [CompletionItem(name, help=line) for name, line in lines]
        starting = [item for item in items if item.value.startswith(incomplete)]
        return starting + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and note whether it goes on when stdout is closed early."""
        name = args[0]
        if not ctx.resilient_parsing:
            _refuse_empty(args[1:], name)
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(_unknown(name), ctx)
        resolved = super().resolve_command(ctx, args)
        if resolved[1] is not None and not ctx.resilient_parsing:
            refuse_repeated(resolved[1], args[1:])
        if ctx.obj is not None:
            ctx.obj.goes_on = resolved[0] not in STOPS_WITHOUT_READER
        return resolved

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises BugError for what click would take for Ctrl-D or a closed pipe, with its exit codes.
        """
        try:
            return super().invoke(ctx)
        except (EOFError, OSError) as error:
            raise BugError from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _refuse_empty(words: list[str], before: str) -> None:
    """Raise UsageError for an empty word, as of an unset variable of the shell.

    As a path it would be the current folder, and no option means anything by it.
    """
    for word in words:
        option, equals, value = word.partition("=")
        if not word or (option.startswith("--") and equals and not value):
            named = option or before
            subject = named if named.startswith("-") else f"the argument after {named}"
            raise UsageError(f"{subject} is empty: give a value, or leave it out")
        before = word


def refuse_repeated(command: click.Command, words: list[str]) -> None:
    """Raise UsageError for a repeated option of one value: click takes the last without a word."""
    # Whatever else is wrong is told when click parses the words for the command.
    parser = command.make_parser(click.Context(command, resilient_parsing=True))
    _, _, given = parser.parse_args(list(words))
    if any(each.is_eager for each in given):  # --help
        return
    for option, times in Counter(filter(_takes_one_value, given)).items():
        if times > 1:
            name = max(option.opts, key=len)
            raise UsageError(f"{name}: given {times} times, allowed is one value; give it once")


def _takes_one_value(parameter: click.Parameter) -> bool:
    if not isinstance(parameter, click.Option):
        return False
    flag = parameter.is_flag and not parameter.secondary_opts  # --exif and --no-exif: one value
    return not (parameter.multiple or parameter.count or flag)


def _unknown(name: str) -> str:
    """Return the message for an unknown command, with the nearest ones."""
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS) or [each for each in COMMANDS if name in each]
    meant = f" Did you mean {' or '.join(near[:2])}?" if near else ""
    return f"No such command {name!r}.{meant}"


def _set_verbosity(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    """Note -q or -v, which may stand before or behind the command. Raises click.UsageError."""
    if value:
        setattr(VERBOSITY, str(option.name), True)
    if VERBOSITY.quiet and VERBOSITY.verbose:
        raise click.UsageError("--quiet and --verbose: give one of them only", ctx)


def _verbosity(short: str, long: str, text: str) -> click.Option:
    return click.Option(
        [short, long], is_flag=True, expose_value=False, callback=_set_verbosity, help=text
    )


# Options of kedge and of each command.
QUIET = _verbosity("-q", "--quiet", "Print results, warnings and errors only.")
VERBOSE = _verbosity(
    "-v", "--verbose", "Also print what libraries print, keep logs, and show tracebacks."
)


def _shows(short: str, long: str, text: str, shown: Callable[[click.Context], str]) -> click.Option:
    """Return an option that prints a text and ends the command.

    click's own would look for translations of its sentences: kedge has none.
    """

    def show(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            click.echo(shown(ctx), color=ctx.color)
            ctx.exit()

    words = [short, long]
    return click.Option(
        words, is_flag=True, is_eager=True, expose_value=False, callback=show, help=text
    )


HELP = _shows("-h", "--help", "Show this message and exit.", click.Context.get_help)
VERSION = _shows(
    "-V", "--version", "Show the version and exit.", lambda _: f"kedge, version {__version__}"
)


@click.group(cls=LazyGroup, params=[QUIET, VERBOSE, VERSION, HELP], add_help_option=False)
def kedge() -> None:
    """Convert Keras image classifiers for edge devices and verify the result.

    Exit codes: 0 passed, 1 a gate failed, 2 usage error, 3 inconclusive, 70 a bug in kedge.
    """


def main() -> None:
    """Run the command line. Every error is one line on stderr and an exit code."""
    _hold_descriptors()
    VERBOSITY.quiet = VERBOSITY.verbose = False
    if sys.stdout is None:
        say("stdout is closed; redirect it to a file or to /dev/null")
        sys.exit(2)
    try:
        with outputs() as printed, thread_errors_in_one_line():
            code = _run(printed)
    except Exception as error:  # the last output can't be written
        code = exit_code(error)
    sys.exit(code)


def _hold_descriptors() -> None:
    """Open those of stdin, stdout and stderr that are closed, so that no file gets their number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _check_folder() -> None:
    """Refuse a current folder that was removed: nothing can find a relative path then."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current folder no longer exists; change to another one") from None


def _context_settings() -> dict[str, Any]:
    """Return what click must know of the terminal: its colours, and its width for help."""
    return {"color": is_coloured(sys.stdout), "terminal_width": min(columns(), HELP_WIDTH)}


def _run(printed: OutputStream | None) -> int:
    """Run the called command; return its exit code."""
    try:
        if os.environ.get("_KEDGE_COMPLETE"):  # the shell asks for completions
            import_module("kedge_runtime.commands.completion").check_request()
        _check_folder()
        code: int = kedge.main(
            prog_name="kedge", standalone_mode=False, obj=printed, **_context_settings()
        )
    except Exception as error:
        return exit_code(error)
    return code


if __name__ == "__main__":
    main()
