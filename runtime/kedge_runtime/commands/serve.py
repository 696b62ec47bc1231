"""Serve a model and its stream as a page and an interface: the command `kedge serve`."""

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from kedge_runtime.classify.results import Classes
from kedge_runtime.commands.opening import opening_options
from kedge_runtime.commands.options import record
from kedge_runtime.commands.paths import FILE, FOLDER
from kedge_runtime.commands.stream import summing_up
from kedge_runtime.commands.streaming import StreamRequest, stream_request_options
from kedge_runtime.commands.updating import StreamModel
from kedge_runtime.commands.watch import ending_by_signal
from kedge_runtime.commands.watch_lines import EventLog
from kedge_runtime.errors import UsageError, install, reason_of
from kedge_runtime.files import read_text
from kedge_runtime.output import note, only_python_stderr
from kedge_runtime.serve.address import Address
from kedge_runtime.serve.labelling import UnsureLabelling

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

    stream: StreamRequest
    address: AddressRequest

    def check_stream(self) -> None:
        """Raise UsageError for an option that only a stream has a use for."""
        gates, sinks = self.stream.gates, self.stream.sinks
        idle = {
            "--debounce": gates.debounce,
            "--motion": gates.motion,
            "--csv": sinks.csv,
            "--mqtt": sinks.mqtt,
            "--webhook": sinks.webhook,
        }
        for option, value in idle.items():
            if value is not None and not self.stream.source.given:
                raise UsageError(f"{option}: is for a stream; give --camera or --video, too")


@click.command()
@stream_request_options
@address_options
@opening_options
def serve(**options: Any) -> int:
    """Serve a page with the live stream, and classify images by HTTP.

    ARTEFACT ends in .tflite or .onnx. --camera or --video runs the stream in the same process, as
    `kedge watch` does. POST /v1/classify takes an image; /openapi.json describes it.
    """
    return run(ServeOptions(StreamRequest.take(options), **options))


def run(options: ServeOptions) -> int:
    """Serve until Ctrl-C; return the exit code."""
    artefacts = options.stream.artefacts()
    options.check_stream()
    token = options.address.token()
    running, access = (_library(f"kedge_runtime.serve.{name}") for name in ("running", "access"))
    with Address(options.address.host, options.address.port).bind() as listening:
        stream = options.stream.open(artefacts)
        with only_python_stderr(), ending_by_signal():
            rules = access.AccessRules(token, options.address.requests())
            opened = _opened(stream, options)
            setup = running.Setup(stream.model, options.stream.model.rule, *opened, rules)
            note(f"http://{_shown(*listening.getsockname()[:2])} (Ctrl-C ends it)")
            tally = setup.classifier.tally if setup.items else None
            with summing_up(tally, stream.model):
                running.serve(setup, listening)
    return 0


def _opened(opened: StreamModel, options: ServeOptions) -> tuple[Any, ...]:
    """Open the stream: classifier, origin, items, observers, sinks and labelling, in this order."""
    stream = options.stream
    labelling = options.address.labelling(stream.gates.save_unsure, opened.model.classes)
    classifier, origin = stream.classifier(opened), stream.origin(opened)
    items = stream.source.open() if stream.source.given else None
    sinks = [EventLog(), *stream.open_sinks(origin)]
    return classifier, origin, items, opened.observers, sinks, labelling


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
