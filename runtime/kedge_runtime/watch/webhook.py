"""Post messages to an address by HTTP: each at least once, across restarts and lost networks."""

import http.client
import os
import re
import threading
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from kedge_runtime import __version__
from kedge_runtime.errors import UsageError, one_line
from kedge_runtime.output import note, say
from kedge_runtime.watch.loop import Message
from kedge_runtime.watch.message import Origin, line_of
from kedge_runtime.watch.mqtt import FAREWELL, PAUSE, dropped_event, is_host
from kedge_runtime.watch.outbox import Outbox, Posting

TOKEN = "KEDGE_WEBHOOK_TOKEN"
TIMEOUT = 10.0
# A receiver that answers so will never take this message: it is dropped, and said.
REFUSED = frozenset({400, 404, 405, 410, 413, 415, 422})


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses to post a message elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


def check_address(address: str) -> str:
    """Return an address for `--webhook`. Raises UsageError."""
    try:
        url = urlsplit(address)
        known = url.scheme in ("http", "https") and url.port != 0 and not url.username
    except ValueError:  # a port above 65535, half a bracket
        url, known = urlsplit(""), False
    if not known or not is_host(url.hostname) or not re.fullmatch(r"[!-~]+", address):
        raise UsageError(
            f"--webhook: expected http://HOST[:PORT]/PATH or https://..., in ASCII without blanks; "
            f"a token in {TOKEN}"
        )
    return address


def _token() -> str:
    token = os.environ.get(TOKEN, "").strip()
    if not token.isascii() or not token.isprintable():
        raise UsageError(f"--webhook: the token in {TOKEN} may have printable ASCII only")
    return token


class WebhookSink:
    """Puts messages into an outbox, and posts them one by one; 2xx means taken."""

    def __init__(self, address: str, origin: Origin, outbox: Outbox) -> None:
        """Take the address; a receiver that is away is waited for. Raises UsageError."""
        self._address, self._origin, self._outbox = address, origin, outbox
        self._token = _token()
        self._name = f"webhook {urlsplit(address).hostname}"
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._changed, self._closing = threading.Event(), threading.Event()
        self._away = False
        self._courier = threading.Thread(target=self._carry, name="kedge-webhook", daemon=True)
        self._courier.start()

    @property
    def waiting(self) -> int:
        """The number of messages that the receiver has not taken."""
        return len(self._outbox)

    def put(self, message: Message) -> None:
        """Keep a message until the receiver has it."""
        self._outbox.add("", line_of(message, self._origin))
        self._changed.set()

    def close(self) -> None:
        """Wait a moment for what is left; the rest stays in the outbox."""
        end = time.monotonic() + FAREWELL
        while self.waiting and not self._away and time.monotonic() < end:
            time.sleep(0.02)
        self._closing.set()
        self._changed.set()
        self._courier.join(TIMEOUT + 1)
        if self.waiting:
            note(f"{self._name}: {self.waiting} messages wait in {self._outbox.path}")
        self._outbox.close()

    def _carry(self) -> None:
        pause: float = PAUSE[0]
        while not self._closing.is_set():
            waiting = self._outbox.after(0, 1)
            if not waiting:
                self._changed.wait()
                self._changed.clear()
            elif self._post(waiting[0]):
                pause = PAUSE[0]
                self._tell_dropped()
            else:
                self._closing.wait(pause)
                pause = min(2 * pause, PAUSE[1])

    def _post(self, posting: Posting) -> bool:
        """Post a message; return whether the receiver took or refused it."""
        try:
            with self._opener.open(self._request(posting), timeout=TIMEOUT):
                pass
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in REFUSED:
                return self._fail(f"answered {error.code}")
            say(f"{self._name}: refused a message with {error.code}; it is dropped")
        except (OSError, http.client.HTTPException) as error:
            return self._fail(one_line(error))
        if self._away:
            note(f"{self._name}: back")
            self._away = False
        self._outbox.remove({posting.number})
        return True

    def _request(self, posting: Posting) -> urllib.request.Request:
        headers = {"Content-Type": "application/json", "User-Agent": f"kedge/{__version__}"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        return urllib.request.Request(self._address, posting.body.encode(), headers)

    def _fail(self, reason: str) -> bool:
        if not self._away:
            say(f"{self._name}: {reason}; messages wait in {self._outbox.path}")
        self._away = True
        return False

    def _tell_dropped(self) -> None:
        if dropped := self._outbox.dropped():
            self.put(dropped_event(dropped, self._name))
            self._outbox.forget(dropped)
