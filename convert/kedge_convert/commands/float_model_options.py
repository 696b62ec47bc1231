"""Options of the commands that load a float model: what describes it, and the draw of images.

They are apart from those of artefacts: `kedge inspect` need not load what draws images.
"""

from dataclasses import dataclass
from typing import get_args

import click

from kedge_convert.commands.options import CARD
from kedge_convert.load.request import SourceRequest
from kedge_convert.sampling import Sampling
from kedge_runtime.artefact.kinds import Kind
from kedge_runtime.commands.arguments import completing
from kedge_runtime.commands.options import record

MODEL_OPTIONS = (
    click.option(
        "--card",
        shell_complete=CARD,
        help="The application MODEL was built from; `kedge models` lists them.",
    ),
    click.option(
        "--weights",
        default=SourceRequest.weights,
        show_default=True,
        shell_complete=completing(lambda: ["imagenet"], files=True),
        help="For a card: imagenet (downloaded) or a weights file.",
    ),
    click.option(
        "--labels",
        shell_complete=completing(lambda: ["imagenet"], files=True),
        help="FILE with a class a line, or imagenet; instead of the card's.",
    ),
    click.option(
        "--head",
        type=click.Choice(get_args(Kind)),
        help="Output type. Detected from the last layer by default.",
    ),
    click.option("--size", help="224 or 160x192 (height x width), for a MODEL that takes any."),
)


@dataclass(frozen=True)
class FloatModelOptions:
    """The values of the options that say what MODEL itself may not."""

    card: str | None
    weights: str
    labels: str | None
    head: Kind | None
    size: str | None

    def given(self) -> list[str]:
        """Return the options that were given; --weights has a default."""
        return [f"--{name}" for name in ("card", "labels", "head", "size") if getattr(self, name)]

    def of(self, model: str) -> SourceRequest:
        """Return the request for a model, without images."""
        return SourceRequest(
            model,
            weights=self.weights,
            card=self.card,
            labels=self.labels,
            head=self.head,
            size=self.size,
        )


# What describes MODEL, as `described`: FloatModelOptions.
model_options = record("described", FloatModelOptions, *MODEL_OPTIONS)

seed = click.option("--seed", default=Sampling.seed, show_default=True, help="Seed of the draw.")
calibrate_count = click.option(
    "--calibrate-count",
    default=Sampling.calibration,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of calibration images of a conversion.",
)
