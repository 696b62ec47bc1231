"""What a conversion shows while it runs: bars on a terminal, lines in a log."""

import io
import re
import subprocess
import sys

import pytest
from rich import progress as rich_progress
from rich.console import Console

from kedge_convert.worker.progress import (
    ItemDone,
    NoteLine,
    Screen,
    StageEnded,
    StageStarted,
    TimeColumn,
    WarningLine,
    tick,
)


def shown(capfd: pytest.CaptureFixture[str]) -> str:
    """Return the last state that a terminal shows of what went to stderr, without colours."""
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capfd.readouterr().err)
    return next(line for line in reversed(re.split(r"[\r\n]+", text)) if line).rstrip()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make rich take stderr for a terminal of 80 columns."""
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(("total", "count"), [(200, "200/200"), (None, "")])
def test_a_finished_stage_of_a_conversion_tells_what_it_took(
    capfd: pytest.CaptureFixture[str], total: int | None, count: str
) -> None:
    screen = Screen()
    screen.show(StageStarted("export tflite:int16x8, prepared", total))
    for _ in range(total or 0):
        screen.show(ItemDone())
    screen.show(StageEnded())
    screen.close()
    line = shown(capfd)
    assert re.fullmatch(rf"export tflite:int16x8, prepared ━{{16}} +{count} \d\.\d s", line)


def test_a_running_stage_tells_how_long_it_has_run_and_has_left() -> None:
    now = 100.0
    bar = rich_progress.Progress(console=Console(file=io.StringIO()), get_time=lambda: now)
    counted, open_end = bar.add_task("work", total=480), bar.add_task("work", total=None)
    for _ in range(12):
        now += 10
        bar.advance(counted, 20)
    said = [TimeColumn().render(bar._tasks[task]).plain for task in (counted, open_end)]
    assert said == ["2:00, 2:00 left", "2:00"]


def test_an_item_that_outlasts_the_estimate_takes_it_away() -> None:
    now = 100.0
    bar = rich_progress.Progress(console=Console(file=io.StringIO()), get_time=lambda: now)
    task, said = bar.add_task("work", total=25), []
    for _ in range(24):
        now += 1
        tick(bar, task)
    for seconds in (0, 1, 20):
        now += seconds
        said.append(TimeColumn().render(bar._tasks[task]).plain)
    assert said == ["0:24, 0:01 left", "0:25, 0:01 left", "0:45"]


def test_a_stage_of_a_conversion_is_one_line_in_a_log(capfd: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    for event in (StageStarted("work", 2), ItemDone(), ItemDone(), StageEnded()):
        screen.show(event)
    screen.close()
    assert capfd.readouterr().err == "work\n"


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
    assert shown(capfd) == r"caf\udce9.jpg: can't be read"


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
