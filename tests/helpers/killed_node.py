"""A node that puts answers in for ever, and says each number once it is promised."""

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from kedge_runtime.watch.mqtt import Broker, MqttSink
from kedge_runtime.watch.outbox import Outbox
from messages import ORIGIN, answer

if __name__ == "__main__":
    port, folder, first = sys.argv[1:]
    broker = Broker.read(f"mqtt://127.0.0.1:{port}", "feeder")
    node = MqttSink(broker, ORIGIN, Outbox(Path(folder) / "mqtt.queue", 100_000))
    for number in itertools.count(int(first)):
        node.put(answer(number))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
