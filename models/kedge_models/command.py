"""`kedge models`."""

from dataclasses import asdict

import click

from kedge_models.cards import Card, cards
from kedge_runtime.output import echo_json


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def models(as_json: bool) -> None:
    """List the Keras applications that kedge knows, one card each."""
    if as_json:
        found = [asdict(card) for card in cards().values()]
        echo_json({"schema": 1, "command": "models", "models": found})
        return
    click.echo(f"{'name':<20} {'size':>5} {'parameters':>12} {'top-1':>7}  normalisation")
    for card in cards().values():
        click.echo(_row(card))
    click.echo("\nkedge convert NAME takes any of them; `kedge convert demo` needs no download.")


def _row(card: Card) -> str:
    top1 = f"{card.top1:.1f} %" if card.top1 else "-"
    size, parameters = f"{card.size:>5}", f"{card.parameters / 1e6:>10.1f} M"
    return f"{card.name:<20} {size} {parameters} {top1:>7}  {card.normalisation}"
