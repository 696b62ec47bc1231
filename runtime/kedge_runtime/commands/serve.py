"""Serve a model and its stream as a page and an interface: the command `kedge serve`."""

import os
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from kedge_runtime.classify.results import Classes
from kedge_runtime.commands.arguments import split
from kedge_runtime.commands.opening import (
    ModelRequest,
    answer_options,
    model_request,
    opening_options,
)
from kedge_runtime.commands.options import FILE, FOLDER, record
from kedge_runtime.commands.stream import (
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
from kedge_runtime.serve.address import Address
from kedge_runtime.serve.labelling import UnsureLabelling
from kedge_runtime.streams.answers import FrameClassifier, StreamTally
from kedge_runtime.watch.message import Origin

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

    def requests(self) -> float:
        """Return the requests a second of one client, 0 for any number."""
        return (0.0 if self.local else RATE) if self.rate is None else self.rate

    def labelling(self, unsure: Path | None, classes: Classes) -> UnsureLabelling | None:
        """Return where images are labelled; None without a folder. Raises UsageError."""
        if unsure is None:
            if self.labelled:
                raise UsageError("--labelled: takes the images of --save-unsure; name that, too")
            return None
        labelled = self.labelled or unsure.absolute().parent / "labelled"
        return UnsureLabelling(unsure, labelled, classes.labels[classes.offset :])


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

    def check_stream(self) -> None:
        """Raise UsageError for an option that only a stream has a use for."""
        idle = {
            "--debounce": self.gates.debounce,
            "--motion": self.gates.motion,
            "--csv": self.sinks.csv,
            "--mqtt": self.sinks.mqtt,
            "--webhook": self.sinks.webhook,
        }
        for option, value in idle.items():
            if value is not None and not self.source.given:
                raise UsageError(f"{option}: is for a stream; give --camera or --video, too")


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
    options.check_stream()
    token = options.address.token()
    running, access = (_library(f"kedge_runtime.serve.{name}") for name in ("running", "access"))
    with Address(options.address.host, options.address.port).bind() as listening:
        stream = options.updates.open(artefacts, options.model, options.source, options.sinks)
        with only_python_stderr(), ending_by_signal():
            rules = access.AccessRules(token, options.address.requests())
            opened = _opened(stream, options)
            setup = running.Setup(stream.model, options.model.rule, *opened, rules)
            note(f"http://{_shown(*listening.getsockname()[:2])} (Ctrl-C ends it)")
            with summing_up(setup.classifier.tally) if setup.items else nullcontext():
                running.serve(setup, listening)
    return 0


def _opened(stream: StreamModel, options: ServeOptions) -> tuple[Any, ...]:
    """Open the stream: classifier, origin, items, observers, sinks and labelling, in this order."""
    source, gates = options.source, options.gates.options(options.top, options.model.rule)
    labelling = options.address.labelling(options.gates.save_unsure, stream.model.classes)
    classifier = FrameClassifier(stream.model, gates, StreamTally())
    origin = Origin(stream.names, source.name if source.given else "no source")
    items = source.open() if source.given else None
    sinks = [EventLog(), *options.sinks.open(origin, live=source.live)]
    return classifier, origin, items, stream.observers, sinks, labelling


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _library(name: str) -> Any:
    """Import a module that needs the extra. Raises UsageError without it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("kedge"):
            raise
        raise UsageError(f"{error.name} isn't installed:", run=install("serve")) from None
