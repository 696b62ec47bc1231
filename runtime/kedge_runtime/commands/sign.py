"""`kedge sign` and `kedge keygen`."""

import time
from pathlib import Path

import click

from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.file import artefact_of
from kedge_runtime.artefact.signing import (
    MAX_SERIAL,
    PRIVATE,
    PUBLIC,
    generate,
    read_private,
    signed,
    write_pair,
)
from kedge_runtime.errors import UsageError
from kedge_runtime.files import write_whole
from kedge_runtime.output import echo, echo_json


@click.command()
@click.argument("name", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def keygen(name: Path, as_json: bool) -> int:
    """Make an Ed25519 key pair: NAME.key signs, NAME.pub verifies.

    Keep NAME.key secret: whoever has it can sign. Existing files are never overwritten.
    """
    key = generate()
    private, public = (name.with_name(name.name + suffix) for suffix in (PRIVATE, PUBLIC))
    write_pair(key, private, public)
    if as_json:
        body = {"key": key.public.id, "private": str(private), "public": str(public)}
        echo_json({"schema": 1, "command": "keygen", **body})
        return 0
    echo(
        f"{private}: private key, for `kedge sign`; keep it secret",
        f"{public}: public key {key.public.id}, for --key on devices",
    )
    return 0


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
