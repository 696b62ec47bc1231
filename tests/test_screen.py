"""What a conversion shows while it runs: bars on a terminal, lines in a log."""

import os
import pty
import re
import subprocess
import sys

import pytest

from kedge_convert.worker.progress import (
    ItemDone,
    NoteLine,
    Screen,
    StageEnded,
    StageStarted,
    WarningLine,
)

STAGES = """
import time
from kedge_convert.worker.progress import *
screen = Screen()
screen.show(StageStarted("export tflite:int16x8, prepared", 3))
screen.show(ItemDone())
time.sleep(.7)
screen.show(WarningLine("a warning of some words that are longer than a terminal is wide, " * 2))
screen.show(ItemDone())
screen.show(ItemDone())
screen.show(StageEnded())
screen.close()
"""


def on_terminal(code: str, **environment: str) -> str:
    """Run Python code with stderr on a terminal of 80 columns; return what it wrote there."""
    terminal, stderr = pty.openpty()
    env = os.environ | {"TERM": "xterm", "COLUMNS": "80", **environment}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stderr=stderr, stdout=subprocess.PIPE, env=env) as process:
        os.close(stderr)
        written = b""
        while True:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not part:
                break
            written += part
    os.close(terminal)
    assert process.returncode == 0, written
    return written.decode()


def states(written: str) -> list[str]:
    """Return the states of the lines that a terminal showed, without colours."""
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written)
    return [line for line in re.split(r"[\r\n]+", text) if line]


def test_a_bar_of_a_conversion_steps_aside_for_a_message_and_tells_what_it_took() -> None:
    shown = states(on_terminal(STAGES))
    assert all(len(line) < 80 for line in shown)
    said = [line for line in shown if "warning" in line or "terminal" in line]
    assert " ".join(line.strip() for line in said).count("a warning of some words") == 2
    assert re.fullmatch(r"export tflite:int16x8, prepared  ━{16}     3/3  \d\.\d s", shown[-1])


def test_a_bar_has_colours_unless_the_user_wants_none() -> None:
    assert "\x1b[36m" in on_terminal(STAGES)
    assert "\x1b[3" not in on_terminal(STAGES, NO_COLOR="1")


def test_a_dumb_terminal_gets_lines_of_text() -> None:
    written = on_terminal(STAGES, TERM="dumb")
    assert "\x1b" not in written
    assert "━" not in written


def test_a_notebook_gets_a_line_for_each_stage() -> None:
    """`!kedge convert` has a terminal, of which Jupyter shows each state of a bar as a line."""
    jupyter = {"JPY_PARENT_PID": "1", "TERM": "xterm-color", "FORCE_COLOR": "1"}
    written = on_terminal(STAGES, **jupyter)
    assert "━" not in written
    lines = [line for line in states(written) if line.startswith("export")]
    # Its name, and after the warning its name and seconds: no states between.
    assert len(lines) == 2
    assert re.fullmatch(r"export tflite:int16x8, prepared  3/3  \d\.\d s", lines[-1])


def test_a_stage_of_a_conversion_is_one_line_with_its_seconds_in_a_log(
    capfd: pytest.CaptureFixture[str],
) -> None:
    screen = Screen()
    for event in (StageStarted("work", 2), ItemDone(), ItemDone(), StageEnded()):
        screen.show(event)
    screen.close()
    assert re.fullmatch(r"work  2/2  \d\.\d s\n", capfd.readouterr().err)


def test_a_message_within_a_stage_has_a_line_of_its_own_in_a_log(
    capfd: pytest.CaptureFixture[str],
) -> None:
    screen = Screen()
    for event in (StageStarted("work"), WarningLine("careful"), StageEnded(complete=False)):
        screen.show(event)
    screen.close()
    first, second, third = capfd.readouterr().err.splitlines()
    assert (first, second) == ("work", "careful")
    assert re.fullmatch(r"work  stopped after \d\.\d s", third)


def test_what_users_call_things_is_no_markup(capfd: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    for event in (WarningLine("m[v2] calls every picture stop[/go] :dog:"), NoteLine("[bold]x")):
        screen.show(event)
    screen.close()
    assert capfd.readouterr().err == "m[v2] calls every picture stop[/go] :dog:\n[bold]x\n"


def test_a_name_that_is_no_text_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.show(WarningLine("caf\udce9.jpg: can't be read"))
    screen.close()
    assert capfd.readouterr().err.rstrip() == r"caf\udce9.jpg: can't be read"


def test_stderr_without_a_reader_ends_no_conversion() -> None:
    code = (
        "from kedge_convert.worker.progress import WarningLine as Line; "
        "from kedge_convert.worker.progress import Screen; "
        "screen = Screen(); screen.show(Line('one')); screen.show(Line('two')); screen.close()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        assert process.stderr
        process.stderr.close()
        assert process.wait() == 0
