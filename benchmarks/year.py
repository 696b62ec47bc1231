"""A year of `kedge serve` in little: many frames, with all that a year brings.

One server with a page, MQTT and a CSV file watches a made-up camera. Meanwhile the camera is lost
again and again, the broker is stopped and started, the process is killed with SIGKILL and started
anew, and the disk of its state is full for a while (a small file system, where root may mount one).
Three updates come: a good one, one with exchanged labels, and a good one. A subscriber with a
session of its own hears all that the broker took.

    python benchmarks/year.py --artefact FILE --images DIR [--frames N]

Exit code 1 for a message that was promised (it is in the CSV file) and never arrived, another end
than the kills, memory above 150 MB, an answer of the bad update, or a last answer of another model
than the last update.
"""

import argparse
import csv
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import paho.mqtt.client as paho

import machine
from kedge_runtime.artefact.content import SealedParts, read_content
from kedge_runtime.artefact.file import artefact_of
from kedge_runtime.artefact.reseal import resealed, write_resealed

RESULTS = Path(__file__).parent / "results"
MOST_MEMORY = 150_000_000
KILLS = 4  # and as many restarts of the broker
UPDATES = ("first", "bad", "last")  # the models that come, one after each of the first kills

# The camera: images of a folder, each for some frames, shifted and lit anew each time; lost after
# every 5 000 frames. It waits for the model, so that every frame is classified.
CAMERA = """
import sys, time
from pathlib import Path
import cv2
import numpy as np
from kedge_runtime.cli import main
from kedge_runtime.commands import stream
from kedge_runtime.errors import ImageError
from kedge_runtime.streams import live
from kedge_runtime.streams.sources import Frame

folder = Path(sys.argv.pop())
images = [cv2.imread(str(path))[..., ::-1] for path in sorted(folder.iterdir())]
random = np.random.default_rng()

class Paced(live.Mailbox):
    def put(self, frame):
        with self._changed:
            self._changed.wait_for(lambda: self._frame is None or self._ended)
        return super().put(frame)

    def take(self, timeout):
        item = super().take(timeout)
        with self._changed:
            self._changed.notify_all()
        return item

def camera(name):
    def frames():
        for index in range(5000):
            if index % 20 == 0:
                image = images[random.integers(len(images))]
                light = random.uniform(.8, 1.2)
                image = np.clip(np.roll(image, random.integers(9), 1) * light, 0, 255)
                image = image.astype(np.uint8)
            yield Frame(index, time.time(), image)
        raise ImageError("made-up loss")
    return frames()

live.Mailbox = Paced
live.OPENERS["year"] = camera
stream.open_live = lambda name: live.open_live(name, live.Waits(10, 60, .05, .4))
main()
"""


@dataclass(frozen=True)
class Year:
    """What a run found. `promised`: answers in the CSV files; `missing`: those nobody heard;
    `answers`: how many each model gave, `last_model` the last one.
    """

    artefact: str
    frames: int
    losses: int
    kills: int
    broker_restarts: int
    full_disk: bool
    promised: int
    missing: int
    most_memory: int
    most_descriptors: int
    other_ends: list[str]
    answers: dict[str, int]
    last_model: str

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, nothing ended by itself, memory stayed small, and the good
        models answered and no other.
        """
        whole = not (self.missing or self.other_ends) and self.most_memory <= MOST_MEMORY
        good = {self.artefact, "first.tflite", "last.tflite"}
        return whole and set(self.answers) == good and self.last_model == "last.tflite"


class Broker:
    """Mosquitto, which keeps sessions on disk."""

    def __init__(self, folder: Path) -> None:
        """Start it on a free port."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\n"
            f"persistence true\npersistence_location {folder}/\nmax_queued_messages 0\n"
        )
        self.start()

    def start(self) -> None:
        """Start it."""
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        command = [program, "-c", str(self._config)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        """Stop it; it writes what it holds."""
        self._process.terminate()
        self._process.wait()


class Subscriber:
    """Hears each answer, with a session that outlives connections."""

    def __init__(self, port: int) -> None:
        """Connect, and go on until `close`."""
        self.heard: set[tuple[int, int]] = set()
        self.answers: Counter[str] = Counter()
        self.last_model = ""
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id="year", clean_session=False
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("kedge/year/answer", qos=1)
        self._client.on_message = self._hear
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    def close(self) -> None:
        """End."""
        self._client.disconnect()
        self._client.loop_stop()

    def _hear(self, client: Any, data: Any, message: Any) -> None:
        body = json.loads(message.payload)
        self.heard.add((round(1000 * body["time"]), body["frame"]))
        self.last_model = Path(body["artefacts"][0]).name
        self.answers[self.last_model] += 1


class Node:
    """The server, which is killed and started anew."""

    def __init__(self, artefact: Path, images: Path, folder: Path, port: int) -> None:
        """Take where it writes, and its broker."""
        script = folder / "camera.py"
        script.write_text(CAMERA)
        self._csv = folder
        self._starts = 0
        self._command = [sys.executable, str(script), "serve", str(artefact), "--port", "0"]
        self._command += ["--camera", "year", "--debounce", "1/1", "--name", "year"]
        self._command += ["--mqtt", f"mqtt://127.0.0.1:{port}", "--queue", "1000000"]
        self._command += ["--state", str(folder / "state"), "--updates", str(folder / "inbox")]
        self._command += ["--shadow", "40"]  # 20 seconds, as a year lasts minutes here
        self._images = images
        self.start()

    def start(self) -> None:
        """Start it; each start has a CSV file of its own."""
        self._starts += 1
        names = ["--csv", str(self._csv / f"answers{self._starts}.csv"), str(self._images)]
        self.process = subprocess.Popen([*self._command, *names], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        found, said = None, list[str]()
        while not found:  # the broker may be told first
            line = self.process.stderr.readline()
            said.append(line)
            if not line:
                raise RuntimeError(f"the server ended: {''.join(said)}")
            found = re.search(r"http://\S+:(\d+) ", line)
        self._port = int(found[1])
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def figures(self) -> dict[str, float]:
        """Return what /metrics says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=30) as page:
            text = page.read().decode()
        return {name: float(n) for name, n in re.findall(r"^(\w+) ([\d.e+]+)$", text, re.M)}

    def kill(self) -> None:
        """Kill it at once."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def promised(folder: Path) -> set[tuple[int, int]]:
    """Return the answers in the CSV files, but the last of each: a kill may have come before."""
    found = set()
    for path in folder.glob("answers*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if not row["event"]]
        for row in rows[:-1]:
            moment = time_of(row["time"])
            found.add((moment, int(row["frame"])))
    return found


def time_of(text: str) -> int:
    """Return milliseconds since 1970."""
    from datetime import datetime

    return round(1000 * datetime.fromisoformat(text).timestamp())


def mounted(folder: Path) -> bool:
    """Mount a file system of 3 MB at a folder, where this user may."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def updates(artefact: Path) -> dict[str, SealedParts]:
    """Return the updates: resealed from another source, the bad one with its labels
    exchanged, so that it passes `kedge verify` and answers wrongly.
    """
    content, found = read_content(artefact), {}
    contract = artefact_of(content).contract
    for name in UPDATES:
        source = replace(contract.provenance, source=name)
        labels = contract.labels[name == "bad" :] + contract.labels[: name == "bad"]
        changed = replace(contract, provenance=source, labels=labels)
        found[name] = resealed(content, changed)
    return found


class Course:
    """Runs the year: its events are spread evenly over the frames."""

    def __init__(self, artefact: Path, images: Path, folder: Path) -> None:
        """Start broker, subscriber and server."""
        self.state = folder / "state"
        self.small = self.was_small = mounted(self.state)
        self._artefact, self._folder = artefact, folder
        self._updates = updates(artefact)
        (folder / "inbox").mkdir()
        self._broker = Broker(folder)
        time.sleep(0.5)
        self._subscriber = Subscriber(self._broker.port)
        self._node = Node(artefact, images, folder, self._broker.port)
        self._frames = self._losses = self._kills = self._restarts = 0
        self._memory = self._descriptors = 0
        self._ends: list[str] = []
        self._now: dict[str, float] = {}

    def run(self, frames: int) -> None:
        """Run until so many frames were seen."""
        turns = [self._lose_broker, self._mend, self._kill, self._update] * KILLS
        for number, turn in enumerate(turns, 1):
            while self._look() < frames * number / (len(turns) + 1):
                if self._node.process.poll() is not None:
                    self._ends.append(f"exit code {self._node.process.returncode}")
                    return
                time.sleep(0.5)
            turn()
        while self._look() < frames:
            time.sleep(0.5)

    def end(self) -> Year:
        """End all; return what was found."""
        drained(self._node)
        self._look()
        self._node.process.terminate()
        self._node.process.wait(30)
        time.sleep(2)
        self.close()
        wanted = promised(self._folder)
        missing = len({rounded(each) for each in wanted} - near(self._subscriber.heard))
        return Year(
            self._artefact.name,
            int(self._frames + self._now["kedge_frames_total"]),
            int(self._losses + self._now["kedge_losses_total"]),
            self._kills,
            self._restarts,
            self.was_small,
            len(wanted),
            missing,
            self._memory,
            self._descriptors,
            self._ends,
            dict(self._subscriber.answers),
            self._subscriber.last_model,
        )

    def close(self) -> None:
        """End what still runs."""
        self._node.process.kill()
        self._subscriber.close()
        self._broker.stop()
        if self.small:
            subprocess.run(["umount", str(self.state)], check=False)
            self.small = False

    def _look(self) -> float:
        """Read the server's figures; return the frames so far."""
        now = self._now = self._node.figures()
        self._memory = max(self._memory, int(now["process_resident_memory_bytes"]))
        self._descriptors = max(self._descriptors, int(now["process_open_fds"]))
        return self._frames + now["kedge_frames_total"]

    def _lose_broker(self) -> None:
        self._broker.stop()
        fill(self.state, self.small)

    def _mend(self) -> None:
        (self.state / "filler").unlink(missing_ok=True)
        self._broker.start()
        self._restarts += 1

    def _update(self) -> None:
        """Put the next update into the watched folder, while one is left."""
        if self._updates:
            name = next(iter(self._updates))
            data = self._updates.pop(name)
            write_resealed(self._folder / "inbox" / f"{name}.tflite", data)

    def _kill(self) -> None:
        self._frames += int(self._now["kedge_frames_total"])
        self._losses += int(self._now["kedge_losses_total"])
        self._node.kill()
        self._node.start()
        self._kills += 1


def rounded(each: tuple[int, int]) -> tuple[int, int]:
    """Return the key that CSV and JSON share: seconds, as a millisecond may be cut or rounded."""
    return each[0] // 1000, each[1]


def near(heard: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return the keys of what was heard, and their neighbours at a full second."""
    return {((moment + slip) // 1000, frame) for moment, frame in heard for slip in (-1, 0, 1)}


def fill(folder: Path, small: bool) -> None:
    """Fill the small file system."""
    if small:
        try:
            with (folder / "filler").open("wb") as file:
                while True:
                    file.write(b"x" * 4096)
                    file.flush()
        except OSError:
            return


def drained(node: Node) -> None:
    """Wait until nothing waits for the broker."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.5)
        with urllib.request.urlopen(f"http://127.0.0.1:{node._port}/metrics", timeout=30) as page:
            found = re.search(r'kedge_waiting\{sink="mqtt"\} (\d+)', page.read().decode())
        if found and int(found[1]) < 20:
            return


def main() -> int:
    """Run, write the result and print it; return 1 where it failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--artefact", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        course = Course(given.artefact.absolute(), given.images.absolute(), Path(folder))
        try:
            course.run(given.frames)
            found = course.end()
        finally:
            course.close()
    text = json.dumps({"machine": machine.identity(), **asdict(found)}, indent=2)
    (given.out / f"year-{machine.slug()}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    return int(not found.passed)


if __name__ == "__main__":
    sys.exit(main())
