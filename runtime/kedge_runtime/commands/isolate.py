"""The option of commands that can run the engine in a process of its own."""

import click

isolate_option = click.option(
    "--isolate",
    is_flag=True,
    help="Run the engine in a process of its own, under memory and time bounds.",
)
