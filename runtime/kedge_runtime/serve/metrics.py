"""Figures for Prometheus: the stream's counters, what waits, and the requests."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from kedge_runtime.classify.predictor import Predictor
from kedge_runtime.streams.answers import StreamTally

# Field of the tally -> what its counter counts.
COUNTERS = {
    "frames": "Frames of the stream",
    "classified": "Frames that the model classified",
    "answers": "Answers that passed the gates",
    "dropped": "Frames skipped because newer ones arrived first",
    "saved": "Unsure frames saved",
    "losses": "Times that the source was lost",
    "lost_seconds": "Seconds without the source",
}
# Count of a predictor -> what its counter counts.
MODEL_COUNTERS = {
    "second_images": "Images that a model with a second opinion classified",
    "second_asked": "Images that were asked again, of the better model",
}
assert set(COUNTERS) == {field.name for field in fields(StreamTally)}

Waiting = Mapping[str, Callable[[], int]]


@dataclass(frozen=True, eq=False)  # the registry keeps it by identity
class StreamCollector(Collector):
    """Reads the figures when they are asked for. `waiting`: sink -> its undelivered messages."""

    model: Predictor
    tally: StreamTally
    is_live: Callable[[], bool]
    waiting: Waiting

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield each figure."""
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"kedge_{name}", text, getattr(self.tally, name))
        for name, count in self.model.counts().items():
            yield CounterMetricFamily(f"kedge_{name}", MODEL_COUNTERS[name], count)
        yield GaugeMetricFamily(
            "kedge_source_up", "1 while the source gives frames", self.is_live()
        )
        waiting = GaugeMetricFamily("kedge_waiting", "Messages not yet delivered", labels=["sink"])
        for sink, undelivered in self.waiting.items():
            waiting.add_metric([sink], undelivered())
        yield waiting


class Requests:
    """Times requests by path and status."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the histogram."""
        self._seconds = Histogram(
            "kedge_request_seconds",
            "Seconds of a request",
            ["path", "status"],
            registry=registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )

    def note(self, path: str, status: int, seconds: float) -> None:
        """Count a request; `path` is a route's, never what a client made up."""
        self._seconds.labels(path, str(status)).observe(seconds)


def registry_of(collector: StreamCollector) -> CollectorRegistry:
    """Return a registry with the stream's figures and the process's."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry
