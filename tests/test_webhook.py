"""The webhook: a real receiver that goes away, refuses, redirects and comes back."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kedge_runtime import UsageError
from kedge_runtime.watch import webhook
from kedge_runtime.watch.loop import Message
from kedge_runtime.watch.message import record_of
from kedge_runtime.watch.outbox import Outbox
from kedge_runtime.watch.webhook import WebhookSink, check_address
from messages import ORIGIN, answer, event, soon


class Receiver:
    """Takes messages; answers each with the next of `codes`, and 204 at their end."""

    def __init__(self, port: int = 0) -> None:
        self.taken: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.codes: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                code = receiver.codes.pop(0) if receiver.codes else 204
                receiver.headers.append(dict(self.headers))
                if code == 204:
                    receiver.taken.append(body)
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "PAUSE", (0.02, 0.1))
    monkeypatch.setattr(webhook, "FAREWELL", 0.3)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def sink(receiver: Receiver, folder: Path, limit: int = 100) -> WebhookSink:
    address = f"http://127.0.0.1:{receiver.port}/birds"
    return WebhookSink(address, ORIGIN, Outbox(folder / "webhook.queue", limit))


def frames(receiver: Receiver) -> list[int]:
    return [body["frame"] for body in receiver.taken if "frame" in body]


def test_messages_arrive_in_order_as_documented(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEDGE_WEBHOOK_TOKEN", "s3cret")
    hook = sink(receiver, tmp_path)
    messages: list[Message] = [answer(1), event(), answer(2)]
    for message in messages:
        hook.put(message)
    soon(lambda: len(receiver.taken) == 3)
    hook.close()
    assert receiver.taken == [record_of(message, ORIGIN) for message in messages]
    assert receiver.headers[0]["Authorization"] == "Bearer s3cret"
    assert receiver.headers[0]["Content-Type"] == "application/json"


def test_a_receiver_that_fails_gets_the_message_again(
    receiver: Receiver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.codes = [500, 503, 302, 429]
    hook = sink(receiver, tmp_path)
    hook.put(answer(1))
    soon(lambda: frames(receiver) == [1])
    soon(lambda: hook.waiting == 0)
    hook.close()
    away, back = capsys.readouterr().err.splitlines()
    assert "webhook 127.0.0.1: answered 500; messages wait in" in away
    assert back.endswith("webhook 127.0.0.1: back")


def test_a_message_that_is_refused_for_good_stops_no_other(
    receiver: Receiver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.codes = [413]
    hook = sink(receiver, tmp_path)
    hook.put(answer(1))
    hook.put(answer(2))
    soon(lambda: frames(receiver) == [2])
    hook.close()
    assert "refused a message with 413; it is dropped" in capsys.readouterr().err


def test_a_restart_and_a_receiver_that_was_away_lose_nothing(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.close()
    hook = sink(receiver, tmp_path)
    for index in range(5):
        hook.put(answer(index))
    hook.close()
    hook = sink(receiver, tmp_path)
    for index in range(5, 8):
        hook.put(answer(index))
    again = Receiver(receiver.port)
    soon(lambda: frames(again) == list(range(8)))
    hook.close()
    again.close()


def test_a_full_queue_says_what_it_dropped(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.close()
    hook = sink(receiver, tmp_path, limit=3)
    for index in range(10):
        hook.put(answer(index))
    again = Receiver(receiver.port)
    soon(lambda: len(again.taken) == 4)
    assert frames(again) == [7, 8, 9]
    told = next(body for body in again.taken if "event" in body)
    assert (told["event"], told["figures"]) == ("messages-dropped", {"count": 7})
    assert "7 messages dropped from " in told["text"]
    hook.close()
    again.close()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ftp://host/",
        "host/x",
        "http:///x",
        "http://me:pw@host/",
        "http://[",
        "http://host:99999/",
        "http://host:0/",
        "http://a..b/",
        "http://host/a b",
        "http://host/é",
    ],
)
def test_an_address_that_can_not_be_posted_to_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="--webhook: expected http") as error:
        check_address(address)
    assert "pw" not in str(error.value)


def test_a_token_that_no_header_takes_is_refused(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEDGE_WEBHOOK_TOKEN", "two\nlines")
    with pytest.raises(UsageError, match="KEDGE_WEBHOOK_TOKEN may have printable ASCII only"):
        sink(receiver, tmp_path)
