"""`kedge keygen`."""

from pathlib import Path

import click

from kedge_runtime.keys import PRIVATE, PUBLIC, generate, write_pair
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
