"""Print the script with which a shell completes kedge: the command `kedge completion`.

click makes the script, and the shell runs `kedge` for each completion. So the script stays as it is
when commands change. The values are those of the options' types.
"""

import os
from itertools import pairwise

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from kedge_runtime.errors import UsageError

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_KEDGE_COMPLETE"


class ColonBash(BashComplete):
    """Completes words with a colon, such as the target `tflite:int8`.

    bash takes a colon for a word, and replaces only what follows the last one.
    """

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor, and the word at it, joined at colons and `=`."""
        words = split_arg_string(os.environ["COMP_WORDS"])[: int(os.environ["COMP_CWORD"]) + 1]
        # A space before the cursor starts an empty word.
        words += [""] * (int(os.environ["COMP_CWORD"]) + 1 - len(words))
        joined = [words[0]]
        for before, word in pairwise(words):
            if word in (":", "=") or before in (":", "="):
                joined[-1] += word
            else:
                joined.append(word)
        *arguments, self._incomplete = joined[1:] or [""]
        return arguments, self._incomplete

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Return an item without what stands before the last colon of the word."""
        known = self._incomplete.rpartition("=")[2].rpartition(":")
        value = str(item.value).removeprefix("".join(known[:2]))
        return f"{item.type},{value}"


add_completion_class(ColonBash)


def check_request() -> None:
    """Check what a shell's script states of the line to complete. Raises UsageError.

    click reads it unchecked, and ends without a word for a shell that it does not know.
    """
    shell, _, task = os.environ[VARIABLE].partition("_")
    words, cursor = os.environ.get("COMP_WORDS"), os.environ.get("COMP_CWORD", "")
    is_placed = words is not None and (shell == "fish" or cursor.isdecimal())
    if shell in SHELLS and (task == "source" or (task == "complete" and is_placed)):
        return
    raise UsageError(
        f"{VARIABLE} is for the scripts of kedge completion {'|'.join(SHELLS)}, which also set "
        "COMP_WORDS and COMP_CWORD; unset it"
    )


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that completes commands, options and their values in SHELL.

    \b
    bash: echo 'eval "$(kedge completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(kedge completion zsh)"' >> ~/.zshrc
    fish: kedge completion fish > ~/.config/fish/completions/kedge.fish
    """
    group = click.get_current_context().find_root().command
    found = get_completion_class(shell)
    if found is None:
        raise UsageError(f"{shell}: click has no completion for it, allowed are {SHELLS}")
    click.echo(found(group, {}, "kedge", VARIABLE).source())
