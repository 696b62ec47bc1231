"""Run the app and the stream in one process: the server's loop here, the stream in a thread."""

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from kedge_runtime.serve.address import CONNECTIONS

HEAD_WITHIN = 10.0  # seconds for a request's first line and headers
BODY_WITHIN = 25.0  # and for its body; an upload is refused before (uploads.py)
UNFINISHED = (h11.IDLE, h11.SEND_BODY)
FAREWELL = 3  # seconds for open requests at the end
MAX_HEADERS = 16 << 10  # bytes


class PatientProtocol(H11Protocol):
    """Ends a connection that doesn't send a whole request in time; uvicorn waits for ever."""

    _late: asyncio.TimerHandle | None = None
    _limit = HEAD_WITHIN

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the first head."""
        super().connection_made(transport)
        self._wait(HEAD_WITHIN)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._wait_no_longer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; those that come after an answer begin a new head, with its own time."""
        super().data_received(data)
        if self.conn.their_state not in UNFINISHED:
            self._wait_no_longer()
        elif self._late is None and not self.transport.is_closing():
            self._wait(HEAD_WITHIN)

    def _wait(self, seconds: float) -> None:
        self._limit = seconds
        self._late = self.loop.call_later(seconds, self._end_if_unfinished)

    def _wait_no_longer(self) -> None:
        if self._late:
            self._late.cancel()
        self._late = None

    def _end_if_unfinished(self) -> None:
        self._late = None
        if self.conn.their_state is h11.SEND_BODY and self._limit == HEAD_WITHIN:
            self._wait(BODY_WITHIN)
        elif self.conn.their_state in UNFINISHED:
            self.transport.close()


class Background:
    """Runs the stream in a thread, and keeps what ended it."""

    def __init__(self, work: Callable[[], None], ended: Callable[[], Any]) -> None:
        """Start; call `ended` when the work fails."""
        self._work, self._ended = work, ended
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="kedge-stream", daemon=True)
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait for the end. Raises what ended the work."""
        self._thread.join(seconds)
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            # Whatever it is, the main thread raises it.
            self.error = error
            self._ended()


@dataclass(frozen=True)
class Work:
    """What runs beside the server. `stream`: in a thread, None for nothing.

    `leave` ends what the page looks at, fast, as it is called in a signal handler. `stop` ends the
    stream.
    """

    stream: Callable[[], None] | None
    leave: Callable[[], None]
    stop: Callable[[], None]


class _Server(uvicorn.Server):
    """Ends the live images first: uvicorn waits for open answers, and those have no end."""

    leave: Callable[[], None]

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to end."""
        self.leave()
        super().handle_exit(sig, frame)


def run(app: ASGIApp, listening: socket.socket, work: Work) -> None:
    """Serve until SIGINT or SIGTERM, or until the stream fails. Raises what the stream raised."""
    server = _Server(
        uvicorn.Config(
            app,
            http=PatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # what clients do wrong isn't worth a line each
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=FAREWELL,
            h11_max_incomplete_event_size=MAX_HEADERS,
        )
    )
    server.leave = work.leave

    def end() -> None:
        work.leave()
        server.should_exit = True

    background = Background(work.stream, end) if work.stream else None
    try:
        # uvicorn raises the signal again when all is closed.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    finally:
        work.stop()
        if background:
            background.join(10)
