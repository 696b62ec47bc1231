"""Libraries are silenced for the whole process, by whichever threads ask for it."""

import sys
from threading import Event, Thread

import pytest

from kedge_runtime.output import quiet


def test_threads_that_overlap_leave_the_streams_as_they_were(
    capfd: pytest.CaptureFixture[str],
) -> None:
    first_is_in, second_is_in, first_is_out = Event(), Event(), Event()
    streams = sys.stdout, sys.stderr

    def first() -> None:
        with quiet():
            first_is_in.set()
            second_is_in.wait(10)
            sys.stdout.write("not seen\n")
        first_is_out.set()

    def second() -> None:
        first_is_in.wait(10)
        with quiet():
            second_is_in.set()
            first_is_out.wait(10)
            sys.stdout.write("not seen\n")

    threads = [Thread(target=each) for each in (first, second)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert (sys.stdout, sys.stderr) == streams
    sys.stdout.write("seen\n")
    assert capfd.readouterr().out == "seen\n"
