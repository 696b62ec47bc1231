"""`kedge sign`."""

import time
from pathlib import Path

import click

from kedge_runtime.artefact import artefact_of
from kedge_runtime.content import read_content
from kedge_runtime.errors import UsageError
from kedge_runtime.files import write_whole
from kedge_runtime.keys import read_private
from kedge_runtime.output import echo, echo_json
from kedge_runtime.signature import MAX_SERIAL, signed

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("file", type=FILE)
@click.option("--key", type=FILE, metavar="KEY", required=True, help="A private key.")
@click.option(
    "--serial",
    type=click.IntRange(0, MAX_SERIAL),
    metavar="N",
    help="Serial number, against roll-back [default: seconds since 1970].",
)
@click.option("--out", type=FILE, metavar="FILE", help="[default: FILE itself]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def sign(file: Path, key: Path, serial: int | None, out: Path | None, as_json: bool) -> int:
    """Sign the sealed FILE with a private key of `kedge keygen`.

    The signature lies inside the file. A new one replaces the old one. Devices check it with
    --key, and refuse lower serial numbers than --min-serial.
    """
    content, place = read_content(file), out or file.resolve()  # what a link means, not the link
    if place.suffix.lower() != f".{content.format}":
        raise UsageError(f"--out: got {place}, its name must end in .{content.format}")
    artefact_of(content)
    private = read_private(key)
    number = int(time.time()) if serial is None else serial
    write_whole(place, signed(content, private, number))
    if as_json:
        body = {"artefact": str(place), "key": private.public.id, "serial": number}
        echo_json({"schema": 1, "command": "sign", **body})
    else:
        echo(f"{place}: signed with key {private.public.id}, serial number {number}")
    return 0
