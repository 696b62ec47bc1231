"""Fetch a newer artefact for a device: the command `kedge fetch`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge_runtime.commands.options import as_json, trust_options
from kedge_runtime.commands.paths import FILE, FOLDER
from kedge_runtime.commands.stream import state_folder
from kedge_runtime.engines.choice import ENGINES, EngineOptions
from kedge_runtime.errors import UsageError
from kedge_runtime.output import echo, echo_json, say
from kedge_runtime.updates.fetching import Fetched, FetchRequest, fetch
from kedge_runtime.updates.verifying import FAILED, RefusedUpdateError

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust


@dataclass(frozen=True)
class FetchOptions:
    """The options of `kedge fetch`; None where an option is missing."""

    source: str
    updates: Path
    state: Path | None
    ca: Path | None
    engine: str | None
    trust: "Trust | None"
    as_json: bool

    def request(self) -> FetchRequest:
        """Return what to fetch. Raises UsageError."""
        if not self.updates.is_dir():
            raise UsageError(f"--updates {self.updates}: no such folder; create it")
        engine = EngineOptions(engine=self.engine)
        state = self.state or state_folder()
        return FetchRequest(self.source, self.updates, state, self.trust, engine, self.ca)


@click.command("fetch")
@click.argument("source")
@click.option(
    "--updates", type=FOLDER, metavar="DIR", required=True, help="The watched folder to put it in."
)
@trust_options
@click.option("--ca", type=FILE, metavar="PEM", help="Trust these authorities of TLS certificates.")
@click.option("--engine", type=click.Choice(list(ENGINES)), help="[default: the format's]")
@click.option(
    "--state",
    type=FOLDER,
    metavar="DIR",
    help="Folder of the model in use [default: ~/.local/state/kedge].",
)
@as_json
def command(**options: Any) -> int:
    """Fetch the newest artefact of SOURCE for `kedge watch --updates DIR`.

    SOURCE is a folder, a file, or https://HOST/PATH/NAME.tflite, which needs --key. Signature,
    serial number and `kedge verify` are checked before it appears in DIR. The exit code is 1 if it
    fails verify.
    """
    return run(FetchOptions(**options))


def run(options: FetchOptions) -> int:
    """Fetch, and print the result; return the exit code."""
    try:
        fetched = fetch(options.request())
    except RefusedUpdateError as refused:
        say(f"{options.source}: {refused}")
        return FAILED
    if options.as_json:
        body = {"artefact": str(fetched.path), "serial": fetched.serial, "new": fetched.new}
        echo_json({"schema": 1, "command": "fetch", **body})
    else:
        echo(_line(fetched))
    return 0


def _line(fetched: Fetched) -> str:
    serial = "" if fetched.serial is None else f", serial number {fetched.serial}"
    return f"{fetched.path}: {f'fetched and verified{serial}' if fetched.new else 'nothing new'}"
