"""The device's progress bar: what it says, and where."""

import io

import pytest

from kedge_runtime.progress import Bar


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


def test_a_log_gets_one_line() -> None:
    log = io.StringIO()
    with Bar("work", 3, log) as bar:
        for _ in range(3):
            bar.advance()
    assert log.getvalue() == "work\n"


@pytest.mark.parametrize(
    ("done", "seconds", "expected"),
    [
        (0, 0, "------------------------ 0/480"),
        (120, 10, "######------------------ 120/480  12.0/s  0:30 left"),
        (479, 10, "#######################- 479/480  47.9/s  0:00 left"),
        (480, 75, "######################## 480/480  6.4/s  1:15"),
        (1, 100, "------------------------ 1/480  0.0/s  13:18:20 left"),
    ],
)
def test_rate_and_time(done: int, seconds: float, expected: str) -> None:
    clock = Clock()
    bar = Bar("work", 480, Terminal(), clock)
    bar.advance(done)
    clock.time += seconds
    assert bar.line() == f"{'work':<29} {expected}"


def test_what_an_earlier_run_did_says_nothing_of_the_rate() -> None:
    clock = Clock()
    bar = Bar("work", 480, Terminal(), clock)
    bar.skip(360)
    clock.time += 10
    bar.advance(60)
    assert bar.line().endswith("420/480  6.0/s  0:10 left")


def test_a_terminal_shows_the_end_in_one_line() -> None:
    terminal, clock = Terminal(), Clock()
    with Bar("work", 2, terminal, clock) as bar:
        for _ in range(2):
            clock.time += 1
            bar.advance()
    shown = terminal.getvalue()
    assert shown.count("\n") == 1
    assert shown.split("\r")[-1] == f"{'work':<29} {'#' * 24} 2/2  1.0/s  0:02\x1b[K\n"


@pytest.mark.parametrize("columns", [20, 80, 200])
def test_a_line_is_shorter_than_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal, clock = Terminal(), Clock()
    bar = Bar("a name of more than thirty letters.tflite", 50000, terminal, clock)
    clock.time += 100
    bar.advance(12000)
    (line,) = terminal.getvalue().removesuffix("\x1b[K").split("\r")[1:]
    assert len(line) == min(columns - 1, 86)
    assert columns < 80 or line.endswith(" 12000/50000  120.0/s  5:17 left")


def test_it_is_not_drawn_for_every_item() -> None:
    terminal = Terminal()
    with Bar("work", 1000, terminal, Clock()) as bar:
        for _ in range(1000):
            bar.advance()
    assert terminal.getvalue().count("\r") == 2
