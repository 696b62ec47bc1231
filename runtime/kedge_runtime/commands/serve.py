"""Serve a model and its stream as a page and an interface: the command `kedge serve`."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge_runtime.commands.arguments import split
from kedge_runtime.commands.opening import (
    ModelRequest,
    answer_options,
    model_request,
    opening_options,
)
from kedge_runtime.commands.options import FILE, record
from kedge_runtime.commands.stream import (
    FOLDER,
    FrameSourceRequest,
    GateRequest,
    SinkRequest,
    stream_options,
    summing_up,
)
from kedge_runtime.commands.updating import StreamModel, UpdateRequest, update_options
from kedge_runtime.commands.watch import ending_by_signal, top_option
from kedge_runtime.commands.watch_lines import EventLog
from kedge_runtime.errors import UsageError, install, reason_of
from kedge_runtime.files import read_text
from kedge_runtime.output import note, only_python_stderr
from kedge_runtime.streams.answers import FrameClassifier, StreamTally
from kedge_runtime.streams.live import LiveSource
from kedge_runtime.watch.loop import Sink, Watch
from kedge_runtime.watch.message import Origin

if TYPE_CHECKING:
    from kedge_runtime.serve.app import Service
    from kedge_runtime.serve.view import View

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
TOKEN = "KEDGE_TOKEN"
SHORTEST = 16  # characters of a token
RATE = 50.0  # requests a second of one client, beyond this machine


@dataclass(frozen=True)
class AddressRequest:
    """Where to listen, and who may ask; None where an option is missing."""

    host: str
    port: int
    token_file: Path | None
    rate: float | None
    labelled: Path | None

    @property
    def local(self) -> bool:
        """Whether only this machine can ask."""
        return self.host in LOCAL

    def token(self) -> str | None:
        """Return the token; None for this machine alone. Raises UsageError."""
        token = os.environ.get(TOKEN, "").strip()
        if self.token_file:
            try:
                token = read_text(self.token_file).strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = reason_of(error) if isinstance(error, OSError) else "is no text"
                raise UsageError(f"--token-file: {self.token_file}: {reason}") from None
        if not token and not self.local:
            raise UsageError(
                f"--host {self.host}: others can reach it, so it needs a token: --token-file FILE "
                f"with at least {SHORTEST} characters, or {TOKEN}"
            )
        if token and (len(token) < SHORTEST or not token.isascii() or not token.isprintable()):
            raise UsageError(f"the token needs at least {SHORTEST} printable ASCII characters")
        return token or None


address_options = record(
    "address",
    AddressRequest,
    click.option(
        "--host",
        default="127.0.0.1",
        show_default=True,
        metavar="ADDRESS",
        help="Listen there; beyond this machine with a token only.",
    ),
    click.option(
        "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), metavar="N"
    ),
    click.option("--token-file", type=FILE, metavar="FILE", help="Read the token from a file."),
    click.option(
        "--rate",
        type=click.FloatRange(min=0),
        metavar="N",
        help=f"Requests a second of one client; 0 for any [default: {RATE:g}, on localhost 0].",
    ),
    click.option(
        "--labelled",
        type=FOLDER,
        metavar="DIR",
        help="Move labelled images there [default: labelled, beside --save-unsure].",
    ),
)


@dataclass(frozen=True)
class ServeOptions:
    """The options of `kedge serve`."""

    arguments: tuple[str, ...]
    top: int
    model: ModelRequest
    source: FrameSourceRequest
    gates: GateRequest
    sinks: SinkRequest
    updates: UpdateRequest
    address: AddressRequest


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="ARTEFACT...")
@top_option
@answer_options
@stream_options
@update_options
@address_options
@opening_options
def serve(**options: Any) -> int:
    """Serve a page with the live stream, and classify images by HTTP.

    ARTEFACT ends in .tflite or .onnx. --camera or --video runs the stream in the same process, as
    `kedge watch` does. POST /v1/classify takes an image; /openapi.json describes it.
    """
    return run(ServeOptions(model=model_request(options), **options))


def run(options: ServeOptions) -> int:
    """Serve until Ctrl-C; return the exit code."""
    artefacts, _ = split(options.arguments, streaming=True, zips=True)
    token = options.address.token()
    server = _library("kedge_runtime.serve.server")
    with server.Address(options.address.host, options.address.port).bind() as listening:
        opened = options.updates.open(artefacts, options.model, options.source, options.sinks)
        with only_python_stderr(), ending_by_signal():
            stream = _Stream(opened, options)
            app = _library("kedge_runtime.serve.app").app_of(stream.service(token))
            note(f"http://{_shown(*listening.getsockname()[:2])} (Ctrl-C ends it)")
            server.run(app, listening, server.Work(stream.work, stream.leave, stream.stop))
    return 0


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("kedge"):
            raise
        raise UsageError(f"{error.name} isn't installed:", run=install("serve")) from None


class _Stream:
    """The stream behind a page: it runs in its own thread, with the model of the page."""

    def __init__(self, opened: StreamModel, options: ServeOptions) -> None:
        """Open source and sinks."""
        view: View = _library("kedge_runtime.serve.view").View()
        self._model, self._artefacts, self._options = opened.model, opened.names, options
        self._view, self._tally = view, StreamTally()
        gates = options.gates.options(options.top, options.model.rule)
        self._classifier = FrameClassifier(opened.model, gates, self._tally)
        source = options.source
        self._name = source.name if source.given else "no source"
        self._items = source.open() if source.given else None
        origin = Origin(self._artefacts, self._name)
        self._observers = opened.observers
        self._sinks = options.sinks.open(origin, live=source.live)

    @property
    def work(self) -> Callable[[], None] | None:
        """What to run in a thread; None without a source."""
        return self._watch if self._items is not None else None

    def _watch(self) -> None:
        assert self._items is not None
        sinks: list[Sink] = [self._view, EventLog(), *self._sinks]
        watch = Watch(self._name, self._classifier, [self._view, *self._observers], sinks)
        with summing_up(self._tally):
            watch.run(self._view.tapped(self._items))

    def leave(self) -> None:
        """End what the page looks at."""
        self._view.stop()

    def stop(self) -> None:
        """End the stream."""
        self.leave()
        if isinstance(self._items, LiveSource):
            self._items.close()

    def service(self, token: str | None) -> "Service":
        """Return what the app serves."""
        app, access = (_library(f"kedge_runtime.serve.{name}") for name in ("app", "access"))
        uploads, metrics = (_library(f"kedge_runtime.serve.{n}") for n in ("uploads", "metrics"))
        waiting = {
            type(sink).__name__.removesuffix("Sink").lower(): lambda sink=sink: sink.waiting
            for sink in self._sinks
            if hasattr(sink, "waiting")
        }
        collector = metrics.StreamCollector(self._tally, self._view.is_live, waiting)
        address = self._options.address
        rate = (0.0 if address.local else RATE) if address.rate is None else address.rate
        service: Service = app.Service(
            self._name,
            self._artefacts,
            self._view,
            uploads.Uploads(self._model, self._options.model.rule),
            metrics.registry_of(collector),
            self._labelling(),
            access.AccessRules(token, rate),
        )
        return service

    def _labelling(self) -> Any:
        unsure, labelled = self._options.gates.save_unsure, self._options.address.labelled
        if unsure is None:
            if labelled:
                raise UsageError("--labelled: takes the images of --save-unsure; name that, too")
            return None
        module = _library("kedge_runtime.serve.labelling")
        labels = self._model.classes.labels[self._model.classes.offset :]
        return module.UnsureLabelling(
            unsure, labelled or unsure.absolute().parent / "labelled", labels
        )
