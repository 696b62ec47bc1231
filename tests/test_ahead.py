"""Images are prepared while the engine runs: same order, same errors, bounded memory."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from kedge_runtime.engines.choice import cores
from kedge_runtime.errors import ImageError
from kedge_runtime.image import decode
from kedge_runtime.image.ahead import EACH, ahead
from kedge_runtime.image.memory import DecodeMemory, reserve

MANY = 40


def _slowly(number: int) -> int:
    time.sleep(0.001 * (number % 3))
    if number == 5:
        raise ImageError("the fifth")
    return number * number


def test_the_order_is_that_of_the_items_and_an_error_comes_in_its_place() -> None:
    answers: list[object] = []
    with ahead(_slowly, range(MANY)) as prepared:
        for number, answer in prepared:
            try:
                answers.append((number, answer()))
            except ImageError as error:
                answers.append((number, str(error)))
    expected = [(n, "the fifth" if n == 5 else n * n) for n in range(MANY)]
    assert answers == expected


def test_a_single_item_starts_no_thread() -> None:
    before = threading.active_count()
    with ahead(lambda _: threading.get_ident(), [1]) as prepared:
        assert [answer() for _, answer in prepared] == [threading.get_ident()]
        assert threading.active_count() == before


def test_few_items_are_taken_ahead_and_tasks_overlap() -> None:
    taken, running, most = [], list[int](), [0]

    def items() -> Iterator[int]:
        for number in range(MANY):
            taken.append(number)
            yield number

    def task(number: int) -> int:
        running.append(number)
        most[0] = max(most[0], len(running))
        time.sleep(0.005)
        running.remove(number)
        return number

    with ahead(task, items()) as prepared:
        for number, answer in prepared:
            assert answer() == number
            assert len(taken) <= number + 1 + EACH * cores()
    assert most[0] >= min(2, cores())


def test_what_has_not_started_is_dropped_at_the_end_of_the_block() -> None:
    done = list[int]()
    with pytest.raises(KeyboardInterrupt), ahead(done.append, range(1000)) as prepared:
        next(prepared)
        next(prepared)[1]()
        raise KeyboardInterrupt
    assert len(done) <= 2 * EACH * cores() + 1
    assert not [each for each in threading.enumerate() if each.name.startswith("kedge-images")]


class _Arriving(Iterator[int]):
    """Numbers that arrive one by one: none is ready before the one before it is answered."""

    def __init__(self) -> None:
        self.answered = self.given = 0

    def ready(self) -> bool:
        return False

    def __next__(self) -> int:
        assert self.answered == self.given, "the next item was asked for before the answer"
        self.given += 1
        if self.given > 5:
            raise StopIteration
        return self.given


def test_an_answer_does_not_wait_for_an_item_that_is_not_there_yet() -> None:
    items = _Arriving()
    with ahead(lambda number: number, items) as prepared:
        for number, answer in prepared:
            items.answered += 1
            assert answer() == number == items.answered
    assert items.answered == 5


def test_threads_together_decode_in_the_memory_of_one_image() -> None:
    budget, held, most = DecodeMemory(100), [0], [0]
    lock = threading.Lock()

    def decoding(amount: int) -> None:
        with budget.one_image():
            reserve(amount)
            with lock:
                held[0] += amount
                most[0] = max(most[0], held[0])
            time.sleep(0.002)
            with lock:
                held[0] -= amount

    threads = [threading.Thread(target=decoding, args=(a,)) for a in (60, 50, 30, 100, 20, 90)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(timeout=20)
    assert not any(each.is_alive() for each in threads)
    assert 60 <= most[0] <= 100


def test_a_task_may_work_ahead_itself_within_the_same_memory() -> None:
    def inner(number: int) -> int:
        reserve(10)
        return number

    def outer(number: int) -> int:
        with ahead(inner, [number]) as prepared:
            (found,) = (answer() for _, answer in prepared)
        reserve(5)  # still the same image's
        return found

    with ahead(outer, range(MANY)) as prepared:
        assert [answer() for _, answer in prepared] == list(range(MANY))
    budget = DecodeMemory(100)
    with budget.one_image():
        outer(1)
        assert budget._free == 90
    assert budget._free == 100


def test_an_image_reserves_what_its_header_says(monkeypatch: pytest.MonkeyPatch) -> None:
    reserved = list[int]()
    monkeypatch.setattr(decode, "reserve", reserved.append)
    jpeg = cv2.imencode(".jpg", np.zeros((200, 300, 3), np.uint8))[1].tobytes()
    decode.read_image(jpeg)
    assert reserved and reserved[0] >= 200 * 300 * 3 * 2


def test_an_image_is_answered_before_the_next_name_arrives(artefacts: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    image = tmp_path / "red.png"
    image.write_bytes(cv2.imencode(".png", np.full((9, 9, 3), 200, np.uint8))[1].tobytes())
    command = [sys.executable, "-m", "kedge_runtime.cli", "classify", artefacts / "tiny.tflite"]
    with subprocess.Popen(
        [*map(str, command), "-", "--top", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        for _ in range(2):
            process.stdin.write(f"{image}\n".encode())
            process.stdin.flush()
            assert image.name.encode() in process.stdout.readline()
        process.stdin.close()
        assert process.wait(60) == 0
