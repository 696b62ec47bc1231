"""Run `kedge serve` in a process of its own, and ask it."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

KEDGE = ("-m", "kedge_runtime.cli")


@dataclass(frozen=True)
class Reply:
    """The answer to a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A running server."""

    host: str
    port: int
    process: "subprocess.Popen[str]"

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            heads = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, heads, answer.read())
        finally:
            connection.close()

    def end(self, by: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """End the server; return its exit code and what it wrote on stderr."""
        self.process.send_signal(by)
        _, err = self.process.communicate(timeout=30)
        return self.process.returncode, err


@contextmanager
def served(
    *words: object, env: dict[str, str] | None = None, program: Sequence[str] = KEDGE
) -> Iterator[Served]:
    """Run `kedge serve` with some words on a free port; it is killed after the block."""
    command = [sys.executable, *program, "serve", *map(str, words), "--port", "0"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | (env or {})
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        match = re.search(r"http://\[?([\d.:a-f]+?)\]?:(\d+) ", line)
        assert match, line
        server = Served(match[1], int(match[2]), process)
        _wait(server)
        yield server
    finally:
        process.kill()
        process.communicate()


def _wait(server: Served) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            assert server.ask("/healthz").status == 200
            return
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)


RED, PALE, BLUE = (255, 0, 0), (180, 90, 90), (0, 0, 255)


def encoded(colour: tuple[int, int, int], suffix: str = ".jpg", side: int = 40) -> bytes:
    """Return an image file of one colour."""
    pixels = np.full((side, side, 3), colour[::-1], np.uint8)
    return bytes(cv2.imencode(suffix, pixels)[1])


def write_video(path: Path, colours: list[tuple[int, int, int]]) -> Path:
    """Write a video of one frame for each colour, ten a second, 320x240."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for index, colour in enumerate(colours):
        frame = np.full((240, 320, 3), colour[::-1], np.uint8)
        cv2.circle(frame, (20 + 9 * index % 280, 120), 9, (255, 255, 255), -1)
        writer.write(frame)
    writer.release()
    return path
