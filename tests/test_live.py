"""Live sources: what is lost comes back, what hangs is told, what changes its size goes on."""

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from kedge_runtime import ImageError, UsageError
from kedge_runtime.arrays import Pixels
from kedge_runtime.streams import live
from kedge_runtime.streams.events import Event
from kedge_runtime.streams.live import BACK, LOST, LiveSource, Waits, open_live, resized
from kedge_runtime.streams.picamera import open_picamera2
from kedge_runtime.streams.sources import Frame

RED = (255, 0, 0)
FAST = Waits(silence=0.2, stuck=0.5, first=0.01, most=0.04)


def plain(width: int = 64, height: int = 48, colour: tuple[int, int, int] = RED) -> Pixels:
    return np.full((height, width, 3), colour, np.uint8)


class Flaky:
    """A camera: each connection gives some frames and fails; a negative number refuses it."""

    def __init__(self, *connections: int) -> None:
        self.connections = iter(connections)
        self.opened = self.closed = 0

    def __call__(self) -> Iterator[Frame]:
        count = next(self.connections)
        if count < 0:
            raise ImageError("can't be opened")
        return self._frames(count)

    def _frames(self, count: int) -> Iterator[Frame]:
        self.opened += 1  # a generator that never began has nothing to close
        try:
            for index in range(count):
                time.sleep(0.002)
                yield Frame(index, 0.0, plain())
            raise ImageError("camera x: stopped")
        finally:
            self.closed += 1


def taken(source: LiveSource, until: Callable[[list[Frame | Event]], bool]) -> list[Frame | Event]:
    items: list[Frame | Event] = []
    for item in source:
        items.append(item)
        if until(items):
            break
    source.close()
    return items


def kinds(items: Iterable[Frame | Event]) -> list[str]:
    return [item.kind for item in items if isinstance(item, Event)]


def test_a_lost_source_is_opened_again_until_it_is_back() -> None:
    flaky = Flaky(3, -1, -1, 2, 10_000)
    items = taken(
        LiveSource(flaky, "camera x", FAST), lambda items: kinds(items) == [LOST, BACK] * 2
    )
    lost, back = [item for item in items if isinstance(item, Event)][:2]
    assert lost.text == "camera x: lost: stopped"
    assert back.figures["seconds"] >= 0.03  # two refusals, and the pauses before them
    frames = [item for item in items if isinstance(item, Frame)]
    indices = [frame.index for frame in frames]
    assert indices == sorted(set(indices))  # one count, across the connections
    assert flaky.opened == flaky.closed == 3


def test_the_pause_doubles_up_to_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    source = LiveSource(Flaky(1, *[-1] * 6, 10_000), "camera x", FAST)
    pauses: list[float] = []
    wait = source._stop.wait

    def noted(seconds: float) -> bool:
        pauses.append(seconds)
        return wait(0)

    monkeypatch.setattr(source._stop, "wait", noted)
    taken(source, lambda items: BACK in kinds(items))
    assert pauses[:7] == [0.01, 0.02, 0.04, 0.04, 0.04, 0.04, 0.04]


def test_a_first_connection_that_fails_is_told_at_once() -> None:
    with pytest.raises(ImageError, match="can't be opened"):
        LiveSource(Flaky(-1), "camera x", FAST)


def test_silence_is_a_loss_and_a_frame_ends_it() -> None:
    go = threading.Event()

    def camera() -> Iterator[Frame]:
        yield Frame(0, 0.0, plain())
        go.wait()
        yield from (Frame(i, 0.0, plain()) for i in itertools.count(1))

    def heard(items: list[Frame | Event]) -> bool:
        if LOST in kinds(items):
            go.set()
        return BACK in kinds(items)

    items = taken(LiveSource(camera, "camera x", Waits(0.1, 60, 0.01, 0.1)), heard)
    assert kinds(items) == [LOST, BACK]
    assert "no frame for 0.1 s" in str(items[1])


def test_a_read_that_hangs_for_good_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PATIENCE", 0.1)
    let_go = threading.Event()

    def camera() -> Iterator[Frame]:
        yield Frame(0, 0.0, plain())
        let_go.wait()

    with pytest.raises(ImageError, match=r"camera x: its driver has hung for 0.5 s; start kedge"):
        list(LiveSource(camera, "camera x", FAST))
    let_go.set()


def test_a_bug_in_the_camera_is_not_taken_for_a_loss() -> None:
    def camera() -> Iterator[Frame]:
        yield Frame(0, 0.0, plain())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(LiveSource(camera, "camera x", FAST))


def test_a_hundred_losses_leave_no_thread_and_no_camera() -> None:
    flaky = Flaky(*[1] * 101, 10_000)
    waits, before = Waits(5, 5, 0.0001, 0.0002), threading.active_count()
    items = taken(LiveSource(flaky, "x", waits), lambda items: kinds(items).count(BACK) == 100)
    assert kinds(items).count(LOST) == 100
    assert threading.active_count() == before
    assert flaky.opened == flaky.closed


def test_another_size_is_an_event() -> None:
    assert resized(Frame(0, 0.0, plain()), (48, 64), "camera x") is None
    event = resized(Frame(0, 7.0, plain(32, 24)), (48, 64), "camera x")
    assert event == Event(
        7.0,
        "source-resized",
        "camera x: frames of 32x24 pixels, before 64x48",
        {"width": 32, "height": 24},
    )


# A real network camera: JPEGs by HTTP, read by OpenCV's FFmpeg.


class NetworkCamera:
    """Serves MJPEG on a port of its own: started, stopped and started anew with another size."""

    def __init__(self, width: int, height: int, port: int = 0) -> None:
        jpeg = cv2.imencode(".jpg", plain(width, height, RED[::-1]))[1].tobytes()
        stop = self.stop = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
                self.end_headers()
                head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                try:
                    while not stop.wait(0.02):
                        self.wfile.write(head.encode() + jpeg + b"\r\n")
                except OSError:
                    pass  # the reader is gone

            def log_message(self, *_: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()


def test_a_network_camera_that_goes_and_comes_back_with_another_size() -> None:
    camera = NetworkCamera(64, 48)
    address = f"http://127.0.0.1:{camera.port}/video"
    source = open_live(address, Waits(silence=5, stuck=30, first=0.1, most=0.2))
    cameras, sizes = [camera], list[tuple[int, ...]]()

    def seen(items: list[Frame | Event]) -> bool:
        item = items[-1]
        if isinstance(item, Frame):
            sizes.append(item.pixels.shape)
            if len(cameras) == 1 and len(sizes) == 3:
                cameras[0].close()
        elif item.kind == LOST and len(cameras) == 1:
            cameras.append(NetworkCamera(96, 64, camera.port))
        return sizes.count((64, 96, 3)) == 3

    items = taken(source, seen)
    cameras[-1].close()
    assert kinds(items) == [LOST, BACK]
    assert sizes[0] == (48, 64, 3)
    last = items[-1]
    assert isinstance(last, Frame)
    assert np.abs(last.pixels.astype(int) - RED).max() <= 3


# Picamera2, by a stand-in that behaves as its manual says


class Picamera2:
    """Red images in the memory order of "RGB888", which is BGR; fails as the real one does."""

    frames = 3
    running: ClassVar[list["Picamera2"]] = []

    def __init__(self, camera_num: int = 0) -> None:
        [None][camera_num]  # IndexError: list index out of range
        self.format = ""
        self.running.append(self)

    def create_video_configuration(self, main: dict[str, Any]) -> dict[str, Any]:
        # The default has four channels: "XBGR8888".
        return {"main": {"format": "XBGR8888", "size": (1280, 720)} | main, "buffer_count": 6}

    def configure(self, configuration: dict[str, Any]) -> None:
        self.format, self.size = configuration["main"]["format"], configuration["main"]["size"]

    def start(self) -> None:
        self.left = self.frames

    def capture_array(self, name: str = "main") -> Any:
        assert name == "main"
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("Camera frontend has timed out!")
        width, height = self.size
        memory = {"RGB888": (0, 0, 255), "BGR888": (255, 0, 0), "XBGR8888": (255, 0, 0, 255)}
        return np.full((height, width, len(memory[self.format])), memory[self.format], np.uint8)

    def stop(self) -> None:
        self.left = 0

    def close(self) -> None:
        self.running.remove(self)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> type[Picamera2]:
    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace(Picamera2=Picamera2))
    Picamera2.running.clear()
    return Picamera2


def test_a_camera_module_gives_rgb_and_is_released(library: type[Picamera2]) -> None:
    frames = open_picamera2("picamera2")
    first = next(frames)
    assert first.pixels.shape == (480, 640, 3)
    assert first.pixels[0, 0].tolist() == [255, 0, 0]
    assert len(library.running) == 1
    with pytest.raises(ImageError, match=r"stopped after 3 frames \(Camera frontend has timed"):
        list(frames)
    assert library.running == []


def test_a_camera_module_comes_back_after_a_loss(library: type[Picamera2]) -> None:
    items = taken(open_live("picamera2", FAST), lambda items: kinds(items).count(BACK) == 2)
    assert all(
        item.pixels[0, 0].tolist() == [255, 0, 0] for item in items if isinstance(item, Frame)
    )
    assert library.running == []


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("picamera2:1", ImageError, "camera picamera2:1: can't be opened"),
        ("picamera2:x", UsageError, "expected picamera2, or a number behind it"),
    ],
)
def test_a_camera_module_that_is_not_there(
    library: type[Picamera2], name: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        open_live(name)
