"""`kedge classify`."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from kedge_runtime.classifier import Classifier, Result
from kedge_runtime.errors import ImageError, UsageError
from kedge_runtime.image import SUFFIXES
from kedge_runtime.quiet import quiet


@click.command()
@click.argument("artefact", type=click.Path(path_type=Path))
@click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path)
)
@click.option(
    "--top", default=5, show_default=True, type=click.IntRange(min=1), help="Answers per picture."
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads of the engine [default: all cores]."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def classify(
    artefact: Path, images: tuple[Path, ...], top: int, threads: int | None, as_json: bool
) -> int:
    """Name what is in pictures with a sealed ARTEFACT; folders are searched for pictures."""
    with quiet():
        classifier = Classifier.open(artefact, threads=threads)
    failed, answers = 0, []
    for path in list(_expand(images)):
        try:
            # OpenCV has its own words about a damaged picture; one line is enough.
            with quiet():
                result = classifier(path, top)
        except ImageError as error:
            failed += 1
            click.echo(f"kedge: {error}", err=True)
            continue
        answers.append(_plain(path, result))
        if not as_json:
            click.echo(_lines(path, result))
    if as_json:
        click.echo(
            json.dumps(
                {"schema": 1, "command": "classify", "artefact": str(artefact), "results": answers},
                indent=2,
            )
        )
    return 2 if failed else 0


def _expand(images: tuple[Path, ...]) -> Iterator[Path]:
    for path in images:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not found:
                raise UsageError(f"{path}: no pictures in it ({', '.join(sorted(SUFFIXES))})")
            yield from found
        else:
            yield path


def _lines(path: Path, result: Result) -> str:
    rows = [f"  {p.probability:6.1%}  {p.name} ({p.id})" for p in result.predictions]
    return "\n".join([str(path), *rows])


def _plain(path: Path, result: Result) -> dict[str, Any]:
    return {"image": str(path), "predictions": [asdict(p) for p in result.predictions]}
