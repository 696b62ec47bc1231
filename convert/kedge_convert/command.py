"""`kedge convert`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge_convert.photos import Sampling
from kedge_convert.source import Request
from kedge_convert.targets import TARGETS, parse_targets
from kedge_models import NORMALISATIONS

if TYPE_CHECKING:
    from kedge_convert.pipeline import Job, Outcome


@click.command()
@click.argument("model")
@click.option(
    "--to",
    "targets",
    default="all",
    show_default=True,
    help=f"all, or some of {', '.join(map(str, TARGETS))}.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out"),
    show_default=True,
    help="Folder of the artefacts.",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    help="Folder of pictures; a part of them is kept for the check.",
)
@click.option(
    "--calibrate-count",
    default=Sampling.calibration,
    show_default=True,
    type=click.IntRange(min=1),
    help="Pictures to calibrate with.",
)
@click.option(
    "--check-count",
    default=Sampling.check,
    show_default=True,
    type=click.IntRange(min=1),
    help="Pictures to check with.",
)
@click.option(
    "--seed", default=Sampling.seed, show_default=True, help="Seed of the draw of pictures."
)
@click.option("--card", help="The application MODEL was built from; `kedge models` lists them.")
@click.option(
    "--weights",
    default=Request.weights,
    show_default=True,
    help="For a card: imagenet (downloaded) or a weights file.",
)
@click.option(
    "--preprocess",
    type=click.Choice(["card", "keras"]),
    default=Request.preprocess,
    show_default=True,
    help="keras: exactly load_img and preprocess_input.",
)
@click.option(
    "--normalisation", type=click.Choice(list(NORMALISATIONS)), help="Instead of the card's."
)
@click.option("--labels", help="FILE with a class a line, or imagenet; instead of the card's.")
@click.option(
    "--prepare/--no-prepare",
    default=True,
    show_default=True,
    help="Adjust the weights of integer targets first.",
)
@click.option(
    "--min-agreement", type=click.FloatRange(0, 1), help="Least top-1 agreement with the original."
)
@click.option(
    "--max-logit-error",
    type=click.FloatRange(0),
    help="Largest logit error, as a share of the largest logit.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def convert(**options: Any) -> int:
    """Convert MODEL to verified artefacts.

    MODEL is a card's name (`kedge models`), `demo`, or a .keras file. Every artefact is run on
    pictures that were not used for calibration and compared with the float original before it gets
    its name; one that misses its limits is left as *.rejected, and the exit code is 1.
    """
    from kedge_convert import pipeline, show
    from kedge_convert.progress import Progress

    job = _job(options)
    with Progress(silent=options["as_json"]) as progress:
        outcomes = pipeline.convert(job, progress)
    if options["as_json"]:
        click.echo(json.dumps(_plain(job, outcomes), indent=2))
    else:
        show.table(outcomes)
    return 0 if all(outcome.verdict.passed for outcome in outcomes) else 1


def _job(options: dict[str, Any]) -> "Job":
    from kedge_convert.pipeline import Job

    names = ("model", "weights", "card", "preprocess", "normalisation", "labels")
    return Job(
        request=Request(**{name: options[name] for name in names}),
        targets=parse_targets(options["targets"]),
        out=options["out"],
        calibrate=options["calibrate"],
        sampling=Sampling(options["calibrate_count"], options["check_count"], options["seed"]),
        prepare=options["prepare"],
        limits={"top1": options["min_agreement"], "relative_error": options["max_logit_error"]},
    )


def _plain(job: "Job", outcomes: "list[Outcome]") -> dict[str, Any]:
    """Return the documented object (docs/json.md)."""
    artefacts = [
        {
            "target": str(outcome.target),
            "path": str(outcome.path),
            "bytes": outcome.size,
            "ratio": outcome.ratio,
            "method": outcome.method,
            "passed": outcome.verdict.passed,
            "reasons": list(outcome.verdict.reasons),
            "parity": asdict(outcome.parity),
        }
        for outcome in outcomes
    ]
    return {"schema": 1, "command": "convert", "model": job.request.model, "artefacts": artefacts}
