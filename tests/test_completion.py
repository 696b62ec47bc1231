"""Completion in a shell: words that bash itself completes on a terminal."""

import os
import pty
import select
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Run

pytest.importorskip("kedge_convert.targets", reason="completes options of the converter")


class Bash:
    """An interactive bash on a terminal, in a folder where `kedge` is this one."""

    def __init__(self, folder: Path) -> None:
        kedge = folder / "kedge"
        kedge.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kedge_runtime.cli "$@"\n')
        kedge.chmod(kedge.stat().st_mode | stat.S_IXUSR)
        self._terminal, side = pty.openpty()
        env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
        env |= {"TERM": "dumb", "COLUMNS": "500", "INPUTRC": os.devnull}
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=side,
            stdout=side,
            stderr=side,
            env=env,
            cwd=folder,
            start_new_session=True,
        )
        os.close(side)
        self._send('bind -x \'"\\C-g": echo "<<$READLINE_LINE>>"\'; echo bo""und\n', "bound\r\n")
        self._send('eval "$(kedge completion bash)"; echo do""ne\n', "done\r\n")

    def complete(self, line: str) -> str:
        """Return what the line is after a TAB; the command is not run."""
        # Ctrl-G shows the line, Ctrl-U clears it.
        shown = self._send(f"{line}\t\x07", ">>")
        os.write(self._terminal, b"\x15")
        return shown.rpartition("<<")[2].partition(">>")[0]

    def close(self) -> None:
        """End bash."""
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def _send(self, text: str, until: str) -> str:
        os.write(self._terminal, text.encode())
        return self._read(until)

    def _read(self, until: str) -> str:
        seen, deadline = "", time.monotonic() + 60
        while until not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([self._terminal], [], [], 1)[0]:
                seen += os.read(self._terminal, 65536).decode()
        return seen


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bash]:
    """Return an interactive bash that completes kedge."""
    shell = Bash(tmp_path_factory.mktemp("shell"))
    yield shell
    shell.close()


# What is typed -> what a TAB makes of it.
LINES = {
    "kedge clas": "kedge classify ",
    "kedge fit-": "kedge fit-input ",
    "kedge calibrate-": "kedge calibrate-check ",
    "kedge completion z": "kedge completion zsh ",
    "kedge convert demo --min-ag": "kedge convert demo --min-agreement ",
    "kedge convert demo --device cor": "kedge convert demo --device coral ",
    "kedge convert DenseNet20": "kedge convert DenseNet201 ",
    "kedge convert x.keras --card VGG1": "kedge convert x.keras --card VGG1",
    "kedge convert demo --to tflite:int1": "kedge convert demo --to tflite:int16x8 ",
    "kedge convert demo --to onnx:int8,tfl": "kedge convert demo --to onnx:int8,tflite:",
    "kedge convert x --preprocess image_": "kedge convert x --preprocess image_dataset ",
    "kedge convert x --normalisation caf": "kedge convert x --normalisation caffe ",
    "kedge verify m.tflite --engine onn": "kedge verify m.tflite --engine onnxruntime ",
    "kedge bench m.tflite --engine litert,onn": (
        "kedge bench m.tflite --engine litert,onnxruntime "
    ),
    "kedge classify m.tflite x --truth syn": "kedge classify m.tflite x --truth synset ",
}


@pytest.mark.parametrize("typed", LINES)
def test_bash_completes(bash: Bash, typed: str) -> None:
    assert bash.complete(typed) == LINES[typed]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(kedge: Run, shell: str) -> None:
    code, out, err = kedge("completion", shell)
    assert (code, err) == (0, "")
    assert "_KEDGE_COMPLETE" in out


def test_an_unknown_shell_is_a_usage_error(kedge: Run) -> None:
    code, _, err = kedge("completion", "tcsh")
    assert code == 2
    assert "'bash', 'zsh', 'fish'" in err


# What the scripts set, but for one thing.
CALLS = {
    "no words": {"_KEDGE_COMPLETE": "bash_complete", "COMP_CWORD": "1"},
    "no cursor": {"_KEDGE_COMPLETE": "zsh_complete", "COMP_WORDS": "kedge a"},
    "no number": {
        "_KEDGE_COMPLETE": "bash_complete",
        "COMP_WORDS": "kedge a",
        "COMP_CWORD": "x",
    },
    "nothing for fish": {"_KEDGE_COMPLETE": "fish_complete"},
    "no shell": {"_KEDGE_COMPLETE": "nosh_complete", "COMP_WORDS": "kedge", "COMP_CWORD": "0"},
    "no task": {"_KEDGE_COMPLETE": "bash_sing"},
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_no_script_makes_is_a_usage_error(
    kedge: Run, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    for name, value in CALLS[call].items():
        monkeypatch.setenv(name, value)
    code, out, err = kedge()
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("kedge: _KEDGE_COMPLETE is for the scripts of kedge completion")
