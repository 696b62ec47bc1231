"""Completion in zsh and fish themselves, where they are installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("kedge_convert.targets", reason="completes options of the converter")

# What is typed -> the word that a TAB makes of the last one.
WORDS = {
    "kedge clas": "classify",
    "kedge convert demo --min-ag": "--min-agreement",
    "kedge convert demo --device cor": "coral",
}
FISH = "kedge completion fish | source; complete -C {line}"
# zsh completes on a terminal alone, which zpty makes: TAB, then Ctrl-G shows the line.
ZSH = r"""
zmodload zsh/zpty
zpty inner "zsh -f -i"
zpty -w inner 'PS1=; autoload -Uz compinit; compinit -u -D; eval "$(kedge completion zsh)"'
zpty -w inner 'show(){{ print -r -- "<<$BUFFER>>" }}; zle -N show; bindkey "^G" show; print re""ady'
zpty -r inner out '*ready*'
zpty -w -n inner {line}$'\t\a'
zpty -r inner out '*<<*>>*'
print -r -- "$out"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder where `kedge` is this one."""
    kedge = tmp_path / "kedge"
    kedge.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kedge_runtime.cli "$@"\n')
    kedge.chmod(0o755)
    return tmp_path


def shell(name: str) -> str:
    """Return the path of a shell."""
    return shutil.which(name) or pytest.skip(f"no {name} on PATH")


def run(place: Path, *command: str) -> str:
    """Return what a shell prints."""
    around = os.environ | {"PATH": f"{place}:{os.environ['PATH']}", "HOME": str(place)}
    ended = subprocess.run(
        command, cwd=place, env=around, capture_output=True, text=True, timeout=120, check=False
    )
    return ended.stdout + ended.stderr


@pytest.mark.parametrize("typed", WORDS)
def test_fish_completes(place: Path, typed: str) -> None:
    printed = run(place, shell("fish"), "--no-config", "-c", FISH.format(line=f"'{typed}'"))
    assert printed.split("\t")[0].strip() == WORDS[typed]


@pytest.mark.parametrize("typed", WORDS)
def test_zsh_completes(place: Path, typed: str) -> None:
    printed = run(place, shell("zsh"), "-f", "-c", ZSH.format(line=f"'{typed}'"))
    shown = printed.rpartition("<<")[2].partition(">>")[0]
    assert shown.split()[-1:] == [WORDS[typed]], printed
