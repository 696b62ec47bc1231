"""Join page, interface and stream, and run them: what `kedge serve` does when all is opened."""

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kedge_runtime.classify.predictor import Predictor
from kedge_runtime.classify.results import Rule
from kedge_runtime.serve.access import AccessRules
from kedge_runtime.serve.app import Service, app_of
from kedge_runtime.serve.labelling import UnsureLabelling
from kedge_runtime.serve.metrics import StreamCollector, registry_of
from kedge_runtime.serve.server import Work, run
from kedge_runtime.serve.uploads import Uploads
from kedge_runtime.serve.view import View
from kedge_runtime.streams.answers import FrameClassifier
from kedge_runtime.streams.events import Event, Observer
from kedge_runtime.streams.live import LiveSource
from kedge_runtime.streams.sources import Frame
from kedge_runtime.watch.loop import Sink, Watch
from kedge_runtime.watch.message import Origin


@dataclass(frozen=True)
class Setup:
    """All that is opened. `items`: None without a source; `labelling`: None without a folder."""

    model: Predictor
    rule: Rule
    classifier: FrameClassifier
    origin: Origin
    items: Iterable[Frame | Event] | None
    observers: Sequence[Observer]
    sinks: Sequence[Sink]
    labelling: UnsureLabelling | None
    access: AccessRules


def serve(setup: Setup, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, or until the stream fails. Raises what the stream raised."""
    view = View()
    run(app_of(_service(setup, view)), listening, _work(setup, view))


def _service(setup: Setup, view: View) -> Service:
    tally = setup.classifier.tally
    collector = StreamCollector(setup.model, tally, view.is_live, _waiting(setup.sinks))
    return Service(
        setup.origin.source,
        setup.origin.artefacts,
        view,
        Uploads(setup.model, setup.rule),
        registry_of(collector),
        setup.labelling,
        setup.access,
    )


def _waiting(sinks: Sequence[Any]) -> dict[str, Callable[[], int]]:
    """Return how many messages wait in each sink that has an outbox."""
    names = {type(sink).__name__.removesuffix("Sink").lower(): sink for sink in sinks}
    return {
        name: lambda sink=sink: int(sink.waiting)  # type: ignore[misc]
        for name, sink in names.items()
        if hasattr(sink, "waiting")
    }


def _work(setup: Setup, view: View) -> Work:
    items = setup.items
    watch = Watch(
        setup.origin.source, setup.classifier, [view, *setup.observers], [view, *setup.sinks]
    )

    def stop() -> None:
        view.stop()
        if isinstance(items, LiveSource):
            items.close()

    stream = None if items is None else lambda: watch.run(view.tapped(items))
    return Work(stream, view.stop, stop)
