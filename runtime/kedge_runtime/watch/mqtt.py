"""Publish messages to an MQTT broker: each at least once, across restarts and lost networks.

A message is in the outbox until the broker has acknowledged it (QoS 1). One thread, the courier,
owns what is on its way; paho's own thread only tells it what happened.
"""

import os
import queue
import re
import threading
import time
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from kedge_runtime.errors import UsageError, install
from kedge_runtime.output import note, say
from kedge_runtime.streams.answers import Answer
from kedge_runtime.streams.events import Event
from kedge_runtime.watch.home_assistant import OFFLINE, ONLINE, Topics, discovery
from kedge_runtime.watch.loop import Message
from kedge_runtime.watch.message import Origin, line_of
from kedge_runtime.watch.outbox import Dropped, Outbox

PORTS = {"mqtt": 1883, "mqtts": 8883}
PASSWORD = "KEDGE_MQTT_PASSWORD"
WINDOW = 20  # messages on their way at once
KEEPALIVE = 30  # seconds: a silent broker is noticed after one and a half of them
PAUSE = 1, 60  # seconds before the first and any later try to connect again
FAREWELL = 5.0  # seconds at the end for what is on its way
DROPPED = "messages-dropped"


@dataclass(frozen=True)
class Broker:
    """A broker's address, and who kedge is there. `base`: the node's topics start with it."""

    host: str
    port: int
    tls: bool
    node: str
    base: str
    user: str | None = None
    password: str | None = None

    @classmethod
    def read(cls, address: str, node: str) -> "Broker":
        """Read `mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT][/TOPIC]`. Raises UsageError."""
        try:
            url = urlsplit(address)
            port = url.port
        except ValueError:
            url, port = urlsplit(""), None
        host = url.hostname or ""
        known = url.scheme in PORTS and is_host(host) and port != 0
        if not known or set("?#") & set(address) or not address.isprintable():
            raise UsageError(
                "--mqtt: expected mqtt://[USER@]HOST[:PORT][/TOPIC], or mqtts://... for TLS "
                f"(the password in {PASSWORD})"
            )
        node = re.sub(r"[^A-Za-z0-9_-]", "_", node)
        topic = url.path.strip("/") or f"kedge/{node}"
        if "+" in topic:
            raise UsageError(f"--mqtt: topic {topic}: may not contain +")
        password = os.environ.get(PASSWORD) or url.password
        if password and not password.isprintable():
            raise UsageError(f"--mqtt: the password in {PASSWORD} has characters that don't print")
        return cls(
            host,
            port or PORTS[url.scheme],
            url.scheme == "mqtts",
            node,
            topic,
            url.username and unquote(url.username),
            password and unquote(password),
        )

    @property
    def name(self) -> str:
        """The address for messages, without the password."""
        return f"mqtt {self.host}:{self.port}"


def is_host(name: str | None) -> bool:
    """Return whether a name can be looked up: its parts have 1 to 63 characters (RFC 1035)."""
    try:
        return bool((name or "").encode("idna"))
    except UnicodeError:
        return False


Signal = tuple[Literal["added", "connected", "taken", "close"], int]


class MqttSink:
    """Puts messages into an outbox, and publishes them as the broker takes them."""

    def __init__(self, broker: Broker, origin: Origin, outbox: Outbox) -> None:
        """Start to connect; a broker that is away is waited for. Raises UsageError without paho."""
        self._broker, self._origin, self._outbox = broker, origin, outbox
        self._topics = Topics(broker.base)
        self._signals: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        self._told = ""
        self._client = self._connecting()
        self._courier = threading.Thread(target=self._carry, name="kedge-mqtt", daemon=True)
        self._courier.start()

    @property
    def waiting(self) -> int:
        """The number of messages that no broker has acknowledged."""
        return len(self._outbox)

    def put(self, message: Message) -> None:
        """Keep a message until the broker has it."""
        topics = self._topics
        topic = topics.answer if isinstance(message, Answer) else topics.event
        self._outbox.add(topic, line_of(message, self._origin))
        self._signals.put(("added", 0))

    def close(self) -> None:
        """Wait a moment for what is on its way, and say goodbye; the rest stays in the outbox."""
        end = time.monotonic() + FAREWELL
        while self._client.is_connected() and self.waiting and time.monotonic() < end:
            time.sleep(0.02)
        self._signals.put(("close", 0))
        self._courier.join(FAREWELL)
        if self._client.is_connected():
            said = self._client.publish(self._topics.status, OFFLINE, qos=1, retain=True)
            said.wait_for_publish(max(end - time.monotonic(), 0.5))
        self._client.disconnect()
        self._client.loop_stop()
        if self.waiting:
            note(f"{self._broker.name}: {self.waiting} messages wait in {self._outbox.path}")
        self._outbox.close()

    # The courier's thread.

    def _carry(self) -> None:
        sent: dict[int, int] = {}  # paho's number of a message -> the outbox's
        while True:
            signals = self._news()
            if any(kind == "close" for kind, _ in signals):
                return
            taken = {sent.pop(mid) for kind, mid in signals if kind == "taken" and mid in sent}
            if taken:
                self._outbox.remove(taken)
            if any(kind == "connected" for kind, _ in signals):
                self._introduce()
            self._tell_dropped()
            self._publish(sent)

    def _news(self) -> list[Signal]:
        """Wait for a signal; return all that there are."""
        signals = [self._signals.get()]
        while not self._signals.empty():
            signals.append(self._signals.get())
        return signals

    def _publish(self, sent: dict[int, int]) -> None:
        """Hand on as many messages as may be on their way at once.

        What was handed on before a lost connection is paho's to repeat.
        """
        last = max(sent.values(), default=0)
        for posting in self._outbox.after(last, WINDOW - len(sent)):
            info = self._client.publish(posting.topic, posting.body, qos=1, retain=True)
            sent[info.mid] = posting.number

    def _introduce(self) -> None:
        """Publish what the node is, and that it is there; a new broker may not know it."""
        for topic, text in discovery(self._broker.node, self._topics).items():
            self._client.publish(topic, text, qos=1, retain=True)
        self._client.publish(self._topics.status, ONLINE, qos=1, retain=True)

    def _tell_dropped(self) -> None:
        dropped = self._outbox.dropped()
        if dropped and self._client.is_connected():
            self.put(dropped_event(dropped, self._broker.name))
            self._outbox.forget(dropped)

    # paho's thread.

    def _connecting(self) -> Any:
        paho, broker = _library(), self._broker
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"kedge-{broker.node}")
        if broker.user:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            client.tls_set()
        client.max_inflight_messages_set(WINDOW)
        client.reconnect_delay_set(*PAUSE)
        client.will_set(self._topics.status, OFFLINE, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.connect_async(broker.host, broker.port, KEEPALIVE)
        client.loop_start()
        return client

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, more: Any) -> None:
        if reason.is_failure:
            self._tell(f"refused: {reason}; check user and password")
        else:
            self._tell("connected")
            self._signals.put(("connected", 0))

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, more: Any) -> None:
        if reason.is_failure and self._told == "connected":
            self._tell(f"lost: {reason}; messages wait in {self._outbox.path}")

    def _on_connect_fail(self, client: Any, data: Any) -> None:
        if not self._told:
            self._tell(f"no answer; messages wait in {self._outbox.path}")

    def _tell(self, state: str) -> None:
        """Print a state of the connection, once for all tries that end in it."""
        if state != self._told:
            (note if state == "connected" else say)(f"{self._broker.name}: {state}")
        self._told = state

    def _on_publish(self, client: Any, data: Any, mid: int, reason: Any, more: Any) -> None:
        self._signals.put(("taken", mid))


def dropped_event(dropped: Dropped, name: str) -> Event:
    """Return the event that tells of dropped messages."""
    first, last = (
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
        for moment in (dropped.first, dropped.last)
    )
    text = f"{name}: {dropped.count} messages dropped from {first} to {last}: the queue was full"
    return Event(time.time(), DROPPED, text, {"count": dropped.count})


def _library() -> Any:
    try:
        return import_module("paho.mqtt.client")
    except ModuleNotFoundError:
        raise UsageError("--mqtt: paho-mqtt isn't installed:", run=install("mqtt")) from None
