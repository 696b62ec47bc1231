"""Sign artefacts: the commands `kedge sign` and `kedge keygen`."""

import time
from pathlib import Path
from typing import Any

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
from kedge_runtime.commands.options import as_json
from kedge_runtime.commands.paths import FILE, PLACE
from kedge_runtime.errors import UsageError
from kedge_runtime.files import write_whole
from kedge_runtime.frozen import dataclass
from kedge_runtime.output import echo, echo_json


@click.command()
@click.argument("name", type=PLACE)
@as_json
def keygen(name: Path, as_json: bool) -> int:
    """Create an Ed25519 key pair: NAME.key signs, NAME.pub verifies.

    Keep NAME.key secret: it can sign any file. Existing files are never overwritten.
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


@dataclass(frozen=True)
class SignOptions:
    """The options of `kedge sign`."""

    file: Path
    key: Path
    serial: int | None
    out: Path | None
    as_json: bool


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
@as_json
def sign(**options: Any) -> int:
    """Sign the sealed FILE with a private key of `kedge keygen`.

    The signature is stored in the file. A new one replaces the old one. Devices check it with
    --key, and refuse lower serial numbers than --min-serial.
    """
    return run(SignOptions(**options))


def run(options: SignOptions) -> int:
    """Sign a file; return the exit code."""
    content = read_content(options.file)
    path = options.out or options.file.resolve()  # the target of a link, not the link
    if path.suffix.lower() != f".{content.format}":
        raise UsageError(f"--out: got {path}, its name must end in .{content.format}")
    artefact_of(content)
    private = read_private(options.key)
    serial = int(time.time()) if options.serial is None else options.serial
    write_whole(path, signed(content, private, serial))
    if options.as_json:
        body = {"artefact": str(path), "key": private.public.id, "serial": serial}
        echo_json({"schema": 1, "command": "sign", **body})
    else:
        echo(f"{path}: signed with key {private.public.id}, serial number {serial}")
    return 0
