"""MQTT against a real Mosquitto: it restarts, the network goes, kedge is killed: all arrives."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kedge_runtime import UsageError
from kedge_runtime.watch import mqtt
from kedge_runtime.watch.loop import Message
from kedge_runtime.watch.message import record_of
from kedge_runtime.watch.mqtt import Broker, MqttSink
from kedge_runtime.watch.outbox import Outbox
from messages import ORIGIN, answer, event, soon

paho = pytest.importorskip("paho.mqtt.client", reason="MQTT needs keras-kedge[mqtt]")
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
if not MOSQUITTO:
    pytest.skip("no mosquitto on PATH: apt install mosquitto", allow_module_level=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """A broker in a process of its own. It forgets all at its end, retained messages too."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder = free_port(), folder
        self.start()

    def start(self) -> None:
        config = self._folder / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self.process = subprocess.Popen(
            [str(MOSQUITTO), "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        soon(self._listens)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Listener:
    """Notes what a broker publishes: topic and text."""

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[str, str]] = []
        self._ready = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda client, data, message: self.heard.append(
            (message.topic, message.payload.decode())
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(10)

    def frames(self) -> list[int]:
        bodies = [json.loads(text) for topic, text in self.heard if topic.endswith("/answer")]
        return [body["frame"] for body in bodies]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "PAUSE", (1, 1))
    monkeypatch.setattr(mqtt, "FAREWELL", 2.0)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture
def listener(broker: Mosquitto) -> Iterator[Listener]:
    listener = Listener(broker.port)
    yield listener
    listener.close()


def sink(port: int, folder: Path, limit: int = 1000) -> MqttSink:
    address = Broker.read(f"mqtt://127.0.0.1:{port}", "feeder")
    return MqttSink(address, ORIGIN, Outbox(folder / "mqtt.queue", limit))


def test_messages_arrive_in_order_as_documented(
    broker: Mosquitto, listener: Listener, tmp_path: Path
) -> None:
    node = sink(broker.port, tmp_path)
    messages: list[Message] = [answer(1), event(), *(answer(index) for index in range(2, 200))]
    for message in messages:
        node.put(message)
    node.close()
    heard = [(topic, json.loads(text)) for topic, text in listener.heard if "{" in text]
    ours = [(topic, body) for topic, body in heard if topic.startswith("kedge/")]
    topics = ["kedge/feeder/answer", "kedge/feeder/event", *["kedge/feeder/answer"] * 198]
    records = [record_of(message, ORIGIN) for message in messages]
    assert ours == list(zip(topics, records, strict=True))


def test_the_status_is_that_of_the_connection(
    broker: Mosquitto, listener: Listener, tmp_path: Path
) -> None:
    def status() -> list[str]:
        return [text for topic, text in listener.heard if topic == "kedge/feeder/status"]

    node = sink(broker.port, tmp_path)
    soon(lambda: status() == ["online"])
    node.close()
    soon(lambda: status() == ["online", "offline"])


def test_home_assistant_finds_the_node(broker: Mosquitto, tmp_path: Path) -> None:
    node = sink(broker.port, tmp_path)
    node.put(answer(1))
    soon(lambda: node.waiting == 0)
    listener = Listener(broker.port)  # Home Assistant may start later: all is retained
    soon(lambda: len(listener.heard) >= 5)
    heard: dict[str, Any] = dict(listener.heard)
    listener.close()
    node.close()
    configs = {topic: json.loads(text) for topic, text in heard.items() if topic.endswith("config")}
    assert set(configs) == {
        f"homeassistant/sensor/kedge_feeder/{name}/config"
        for name in ("label", "confidence", "event")
    }
    for config in configs.values():
        assert config["device"]["identifiers"] == ["kedge_feeder"]
        assert config["availability_topic"] == "kedge/feeder/status"
        assert heard[config["availability_topic"]] == "online"
    assert len({config["unique_id"] for config in configs.values()}) == 3
    jinja2 = pytest.importorskip("jinja2")
    answered = json.loads(heard["kedge/feeder/answer"])
    shown = {
        topic.split("/")[3]: jinja2.Template(config["value_template"]).render(value_json=answered)
        for topic, config in configs.items()
        if config["state_topic"] == "kedge/feeder/answer"
    }
    assert shown == {"label": "heron", "confidence": "90.0"}


def test_a_broker_that_restarts_gets_everything(broker: Mosquitto, tmp_path: Path) -> None:
    node, listeners = sink(broker.port, tmp_path), [Listener(broker.port)]
    node.put(answer(0))
    soon(lambda: listeners[0].frames() == [0])
    for round_ in range(2):
        broker.stop()
        for index in range(100):
            node.put(answer(1 + 100 * round_ + index))
        assert node.waiting == 100
        broker.start()
        listeners.append(Listener(broker.port))  # before kedge, whose next try is a second away
        soon(lambda: node.waiting == 0)
    node.close()
    heard = {frame for each in listeners for frame in each.frames()}
    for each in listeners:
        each.close()
    assert heard == set(range(201))


def test_a_killed_process_sends_the_rest_after_its_restart(
    broker: Mosquitto, listener: Listener, tmp_path: Path
) -> None:
    script = Path(__file__).parent / "helpers" / "killed_node.py"
    command = [sys.executable, str(script), str(broker.port), str(tmp_path)]
    told = 0
    for _ in range(3):
        process = subprocess.Popen([*command, str(told)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(150):
            told = int(process.stdout.readline()) + 1
        process.send_signal(signal.SIGKILL)
        told = max([told, *(int(line) + 1 for line in process.stdout.read().split("\n")[:-1])])
        process.wait()
        process.stdout.close()
    node = sink(broker.port, tmp_path, 100_000)
    soon(lambda: node.waiting == 0)
    node.close()
    soon(lambda: set(listener.frames()) >= set(range(told)))


def test_a_network_that_swallows_everything_loses_nothing(
    broker: Mosquitto, listener: Listener, tmp_path: Path
) -> None:
    wire = Wire(broker.port)
    node = sink(wire.port, tmp_path)
    node.put(answer(0))
    soon(lambda: listener.frames() == [0])
    for round_ in range(3):
        wire.cut()
        for index in range(100):
            node.put(answer(1 + 100 * round_ + index))
        wire.mend()
        soon(lambda: node.waiting == 0)
    node.close()
    wire.close()
    assert set(listener.frames()) == set(range(301))


def test_a_full_queue_says_what_it_dropped(broker: Mosquitto, tmp_path: Path) -> None:
    broker.stop()
    node = sink(broker.port, tmp_path, limit=10)
    for index in range(50):
        node.put(answer(index))
    assert node.waiting == 10
    broker.start()
    listener = Listener(broker.port)

    def told() -> list[dict[str, Any]]:
        events = [json.loads(t) for topic, t in listener.heard if topic.endswith("/event")]
        return [each for each in events if each["event"] == "messages-dropped"]

    soon(lambda: bool(told()))
    assert told()[0]["figures"]["count"] == 40
    node.close()
    listener.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[int]:
    """Run a broker that knows the user kedge with the password s3cret; yield its port."""
    make = shutil.which("mosquitto_passwd")
    if make is None:
        pytest.skip("no mosquitto on PATH: apt install mosquitto")
    passwords, port, config = tmp_path / "users", free_port(), tmp_path / "users.conf"
    subprocess.run([make, "-b", "-c", str(passwords), "kedge", "s3cret"], check=True)
    config.write_text(f"user root\nlistener {port} 127.0.0.1\npassword_file {passwords}\n")
    process = subprocess.Popen([str(MOSQUITTO), "-c", str(config)], stderr=subprocess.DEVNULL)
    yield port
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("password", "word"), [("s3cret", "connected"), ("wr0ng", "Not authorized; check user")]
)
def test_what_the_broker_says_of_a_password_is_one_line(
    guarded: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    password: str,
    word: str,
) -> None:
    monkeypatch.setenv("KEDGE_MQTT_PASSWORD", password)
    address = Broker.read(f"mqtt://kedge@127.0.0.1:{guarded}", "feeder")
    node, said = MqttSink(address, ORIGIN, Outbox(tmp_path / "mqtt.queue")), list[str]()
    node.put(answer(1))

    def text() -> str:
        said.append(capsys.readouterr().err)
        return "".join(said)

    soon(lambda: word in text())
    time.sleep(2.5)  # two more tries
    assert node.waiting == (0 if word == "connected" else 1)
    node.close()
    assert text().count(word) == 1
    assert password not in text()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("mqtt://host", ("host", 1883, False, "kedge/my_node", None, None)),
        ("mqtts://me:p%40ss@host:99/a/b", ("host", 99, True, "a/b", "me", "p@ss")),
    ],
)
def test_an_address_is_read(address: str, expected: tuple[object, ...]) -> None:
    broker = Broker.read(address, "my/node")
    assert (
        broker.host,
        broker.port,
        broker.tls,
        broker.base,
        broker.user,
        broker.password,
    ) == expected
    assert broker.name == f"mqtt host:{broker.port}"


@pytest.mark.parametrize(
    "address",
    [
        "host",
        "http://host",
        "mqtt://",
        "mqtt://h:x",
        "mqtt://h:0",
        "mqtt://h..t",
        f"mqtt://{'h' * 64}",
        "mqtt://h/a/#",
        "mqtt://h/\udcff",
    ],
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="--mqtt: "):
        Broker.read(address, "node")


def test_a_password_that_does_not_print_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEDGE_MQTT_PASSWORD", "pass\n")
    with pytest.raises(UsageError, match="KEDGE_MQTT_PASSWORD has characters") as error:
        Broker.read("mqtt://me@h", "node")
    assert "pass\n" not in str(error.value)


class Wire:
    """A network between two ports on this machine, which can be cut: bytes then vanish."""

    def __init__(self, target: int) -> None:
        self._target, self._open = target, threading.Event()
        self._open.set()
        self._sockets: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let bytes vanish from now on."""
        self._open.clear()

    def mend(self) -> None:
        """End the connections that were cut, and carry new ones."""
        for each in self._sockets:
            with suppress(OSError):  # ended already
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._sockets.clear()
        self._open.set()

    def close(self) -> None:
        self._server.close()
        self.mend()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._sockets += [near, far]
            for source, sink_ in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink_), daemon=True).start()

    def _carry(self, source: socket.socket, sink_: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                if self._open.is_set():
                    sink_.sendall(data)
        except OSError:
            pass  # the other end is gone
