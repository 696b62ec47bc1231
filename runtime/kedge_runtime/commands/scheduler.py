"""`--scheduler`, of the commands whose work a cluster may do."""

import click

scheduler = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Let a Dask cluster do it, which sees the same files: tcp://HOST:8786.",
)
