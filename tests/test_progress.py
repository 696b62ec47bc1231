"""The device's progress bar: what it says, and where."""

import io

import pytest

from kedge_runtime.progress import Bar
from kedge_runtime.terminal import VERBOSITY


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a terminal without colours."""
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"NO_COLOR": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)


def test_a_log_gets_one_line_with_the_seconds() -> None:
    log, clock = io.StringIO(), Clock()
    with Bar("work", 3, log, clock) as bar:
        for _ in range(3):
            clock.time += 25.1
            bar.advance()
    assert log.getvalue() == "work  3/3  75.3 s\n"


def test_a_log_names_the_stage_before_it_ends() -> None:
    log = io.StringIO()
    with Bar("work", None, log, Clock()):
        assert log.getvalue() == "work"
    assert log.getvalue() == "work  0.0 s\n"


def test_quiet_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VERBOSITY, "quiet", True)
    for stream in (io.StringIO(), Terminal()):
        with Bar("work", 1, stream, Clock()) as bar:
            bar.advance()
        assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("done", "seconds", "expected"),
    [
        (0, 0, "────────────────   0/480  0:00"),
        (120, 10, "━━━━──────────── 120/480  0:10, 0:30 left"),
        (479, 10, "━━━━━━━━━━━━━━━─ 479/480  0:10, 0:00 left"),
        (1, 100, "────────────────   1/480  1:40, 13:18:20 left"),
    ],
)
def test_the_line_has_the_time_elapsed_and_left(done: int, seconds: float, expected: str) -> None:
    clock = Clock()
    bar = Bar("work", 480, Terminal(), clock)
    clock.time += seconds
    bar.advance(done)
    assert bar.line() == f"{'work':<32} {expected}"


def test_an_item_that_outlasts_the_estimate_takes_it_away() -> None:
    clock = Clock()
    bar, said = Bar("work", 25, Terminal(), clock), []
    for _ in range(24):
        clock.time += 1
        bar.advance()
    for seconds in (0, 1, 20):
        clock.time += seconds
        said.append(bar.line().partition("24/25  ")[2])
    assert said == ["0:24, 0:01 left", "0:25, 0:00 left", "0:45"]


def test_what_an_earlier_run_did_says_nothing_of_the_rate() -> None:
    clock = Clock()
    bar = Bar("work", 480, Terminal(), clock)
    bar.skip(360)
    clock.time += 10
    bar.advance(60)
    assert bar.line().endswith("420/480  0:10, 0:10 left")


def test_a_terminal_shows_the_end_in_one_line() -> None:
    terminal, clock = Terminal(), Clock()
    with Bar("work", 2, terminal, clock) as bar:
        for _ in range(2):
            clock.time += 1
            bar.advance()
    shown = terminal.getvalue()
    assert shown.count("\n") == 1
    assert shown.split("\r")[-1] == f"{'work':<32} {'━' * 16}     2/2  2.0 s\x1b[K\n"


@pytest.mark.parametrize("columns", [20, 80, 200])
def test_a_line_is_shorter_than_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal, clock = Terminal(), Clock()
    bar = Bar("a name of more than thirty letters.tflite", 50000, terminal, clock)
    clock.time += 100
    bar.advance(12000)
    (line,) = terminal.getvalue().removesuffix("\x1b[K").split("\r")[1:]
    assert len(line) == min(columns - 1, 78)
    assert columns < 80 or line.endswith(" 12000/50000  1:40, 5:17 left")


def test_a_stream_without_the_signs_gets_ascii() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "latin-1")
    assert Bar("work", 2, stream, Clock()).line() == f"{'work':<32} {'-' * 16}     0/2  0:00"


def test_it_is_not_drawn_for_every_item() -> None:
    terminal = Terminal()
    with Bar("work", 1000, terminal, Clock()) as bar:
        for _ in range(1000):
            bar.advance()
    assert terminal.getvalue().count("\r") == 2
