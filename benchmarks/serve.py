"""Does `kedge serve` stay quick and small under load: fifty clients at once, then ten thousand?

A real server with a stream (a made-up camera, 15 images a second) gets images from 50 clients
at once, and then 10 000 requests in a row from one. One in five is hostile: words, a cut JPEG, a
bomb, no JPEG. The page's own requests are timed meanwhile, twice a second.

    python benchmarks/serve.py --artefact FILE --images DIR [--requests N]

Exit code 1 for an answer of 500 or more, a 99th percentile of three medians or more, a page that
waits for a second, memory above 150 MB, or one more descriptor at the end.
"""

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

import machine

RESULTS = Path(__file__).parent / "results"
CLIENTS, EACH, IN_A_ROW = 50, 40, 10_000
MOST_RATIO, MOST_WAIT, MOST_MEMORY = 3.0, 1.0, 150_000_000


@dataclass(frozen=True)
class Times:
    """How long answers took, in milliseconds, and their statuses."""

    requests: int
    median_ms: float
    p99_ms: float
    statuses: dict[int, int]

    @classmethod
    def of(cls, seconds: list[float], statuses: Counter[int]) -> "Times":
        """Return the figures of all answers of one kind."""
        ordered = sorted(seconds)
        p99 = ordered[int(0.99 * (len(ordered) - 1))]
        median = statistics.median(ordered)
        return cls(len(ordered), round(1e3 * median, 2), round(1e3 * p99, 2), dict(statuses))

    @property
    def ratio(self) -> float:
        """The 99th percentile in medians."""
        return self.p99_ms / self.median_ms


@dataclass(frozen=True)
class Load:
    """What a run found; memory in bytes, the page's longest wait in milliseconds."""

    artefact: str
    at_once: Times
    in_a_row: Times
    page_most_ms: float
    memory_first: int
    memory_last: int
    descriptors_first: int
    descriptors_last: int

    def faults(self) -> list[str]:
        """Return what a limit forbids."""
        times = {"at once": self.at_once, "in a row": self.in_a_row}
        found = [f"{n}: {s}" for n, t in times.items() for s in t.statuses if s >= 500]
        found += [
            f"{n}: p99 {t.ratio:.1f} medians" for n, t in times.items() if t.ratio >= MOST_RATIO
        ]
        if self.page_most_ms >= 1e3 * MOST_WAIT:
            found.append(f"the page waited {self.page_most_ms:.0f} ms")
        if self.memory_last > MOST_MEMORY:
            found.append(f"memory {self.memory_last / 1e6:.0f} MB")
        if self.descriptors_last > self.descriptors_first:
            found.append(f"descriptors {self.descriptors_first} to {self.descriptors_last}")
        return found


class Client:
    """One connection, kept open; opened again after an error that closes it."""

    def __init__(self, port: int) -> None:
        """Take the server's port on this machine."""
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, float, bytes]:
        """Return status, seconds and body."""
        began = time.perf_counter()
        headers = {"Content-Type": "image/jpeg"}
        self._connection.request("POST" if body is not None else "GET", path, body, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        return answer.status, time.perf_counter() - began, content


def bodies(images: Path) -> list[bytes]:
    """Return ten images and hostile bodies in turn: four images, then one that is none."""
    good = [path.read_bytes() for path in sorted(images.iterdir())[:8]]
    bomb = cv2.imencode(".png", np.zeros((5000, 5000, 3), np.uint8))[1].tobytes()
    hostile = [b"words", good[0][: len(good[0]) // 2], bomb, b"\xff\xd8\xff" + b"\0" * 9999]
    found = []
    for index, bad in enumerate(hostile):
        found += [*islice(cycle(good), 4 * index, 4 * index + 4), bad]
    return found


def together(port: int, sent: list[bytes], clients: int, each: int) -> Times:
    """Let clients ask at once, each one request after the other."""

    def work(number: int) -> list[tuple[int, float]]:
        client = Client(port)
        turn = islice(cycle(sent), number, number + each)
        return [client.ask("/v1/classify", body)[:2] for body in turn]

    with ThreadPoolExecutor(clients) as pool:
        answers = [pair for found in pool.map(work, range(clients)) for pair in found]
    return Times.of([s for status, s in answers if status == 200], Counter(a for a, _ in answers))


class Looking:
    """Asks for what the page shows, twice a second, and keeps the longest wait."""

    def __init__(self, port: int) -> None:
        """Start."""
        self._stop, self._port, self.most = threading.Event(), port, 0.0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def end(self) -> float:
        """Stop; return the longest wait in seconds."""
        self._stop.set()
        self._thread.join()
        return self.most

    def _look(self) -> None:
        client = Client(self._port)
        while not self._stop.wait(0.5):
            for path in ("/v1/state", "/live.jpg"):
                status, seconds, _ = client.ask(path)
                assert status == 200, status
                self.most = max(self.most, seconds)


def held(port: int) -> tuple[int, int]:
    """Return the server's resident bytes and open descriptors, by its own figures."""
    text = Client(port).ask("/metrics")[2].decode()
    names = ("process_resident_memory_bytes", "process_open_fds")
    memory, descriptors = (re.search(rf"^{name} (\S+)$", text, re.MULTILINE) for name in names)
    assert memory is not None and descriptors is not None
    return int(float(memory[1])), int(float(descriptors[1]))


# A stand-in for Picamera2: the images of a folder in turn, 15 a second, as a camera gives them.
CAMERA = """
import itertools, time
from pathlib import Path
import cv2

class Picamera2:
    def __init__(self, number):
        paths = sorted(Path(FOLDER).iterdir())[:30]
        images = [cv2.resize(cv2.imread(str(path)), (640, 480)) for path in paths]
        self._images = itertools.cycle(images)

    def create_video_configuration(self, main):
        return main

    def capture_array(self, name):
        time.sleep(1 / 15)
        return next(self._images)

    configure = start = stop = close = lambda self, *_: None
"""


def measure(artefact: Path, images: Path, requests: int) -> Load:
    """Run the server and the load."""
    with TemporaryDirectory() as folder:
        module = CAMERA.replace("FOLDER", repr(str(images.absolute())))
        (Path(folder) / "picamera2.py").write_text(module)
        words = ["serve", str(artefact), "--camera", "picamera2", "--threads", "1", "--port", "0"]
        command = [sys.executable, "-m", "kedge_runtime.cli", *words]
        paths = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
        around = os.environ | {"PYTHONPATH": paths}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=around)
        try:
            assert process.stderr is not None
            match = re.search(r":(\d+) ", process.stderr.readline())
            assert match is not None
            return load(int(match[1]), artefact.name, bodies(images), requests)
        finally:
            process.terminate()
            process.communicate()


def load(port: int, name: str, sent: list[bytes], requests: int) -> Load:
    """Ask at once, then in a row."""
    together(port, sent, 2, 20)  # to warm up
    time.sleep(1)
    first, looking = held(port), Looking(port)
    at_once = together(port, sent, CLIENTS, EACH)
    in_a_row = together(port, sent, 1, requests)
    most = looking.end()
    time.sleep(6)  # kept connections end after 5 s
    last = held(port)
    return Load(name, at_once, in_a_row, round(1e3 * most, 1), first[0], last[0], first[1], last[1])


def main() -> int:
    """Measure, write the result and print it; return 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--artefact", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=IN_A_ROW)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    found = measure(given.artefact, given.images, given.requests)
    # On a machine with other work, `chrt -r 10 python benchmarks/serve.py ...` comes first.
    scheduling = "normal" if os.sched_getscheduler(0) == os.SCHED_OTHER else "real-time"
    about = {"machine": machine.identity(), "scheduling": scheduling}
    text = json.dumps({**about, **asdict(found)}, indent=2)
    (given.out / f"serve-{machine.slug()}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    for fault in found.faults():
        print(f"MISSED: {fault}")
    return 1 if found.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
