"""`kedge fit-input`."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from kedge_convert.command import ended_by_signals
from kedge_convert.source import Request
from kedge_runtime.contract import Kind
from kedge_runtime.output import echo_json

if TYPE_CHECKING:
    from kedge_convert.fitting.search import Fit
    from kedge_convert.fitting.subject import Subject
    from kedge_convert.progress import Progress
    from kedge_runtime.fitting.scores import Classes

COUNT = 200
LEAST = 10
INCONCLUSIVE = 3
TRUTH = "auto"


@click.command(name="fit-input")
@click.argument("model")
@click.option(
    "--images",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of images, best with one folder for each class.",
)
@click.option(
    "--truth",
    default=TRUTH,
    show_default=True,
    metavar="HOW|FILE",
    help="Ground truth: auto, none, synset (file names), folders, or a table file,label.",
)
@click.option("--labels", help="FILE with a class a line, or imagenet; instead of the card's.")
@click.option(
    "--count",
    default=COUNT,
    show_default=True,
    type=click.IntRange(min=LEAST),
    help="Images to use, drawn at random.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the draw.")
@click.option("--card", help="The application MODEL was built from; `kedge models` lists them.")
@click.option(
    "--weights",
    default=Request.weights,
    show_default=True,
    help="For a card: imagenet (downloaded) or a weights file.",
)
@click.option("--head", type=click.Choice(get_args(Kind)), help="Output type, as for convert.")
@click.option("--size", help="224 or 160x192 (height x width), for a MODEL that takes any.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(**options: Any) -> int:
    """Find the preprocessing that MODEL was trained with.

    The model answers the images under every known normalisation, colour order and geometry. The
    last line of the report has the options for `kedge convert`.

    Exit codes: 0 found, 2 usage error, 3 several normalisations are still possible.
    """
    from kedge_convert.fitting import show
    from kedge_convert.progress import Progress

    with ended_by_signals(), Progress(silent=options["as_json"]) as progress:
        fit = _fit(options, progress)
    if options["as_json"]:
        report = show.plain(fit, options["model"], str(options["images"]))
        echo_json(report)
    else:
        show.page(fit)
    return 0 if fit.decided else INCONCLUSIVE


def _fit(options: dict[str, Any], progress: "Progress") -> "Fit":
    from kedge_convert.fitting import search
    from kedge_convert.fitting.subject import open_subject
    from kedge_convert.toolkit import quiet
    from kedge_runtime.errors import UsageError
    from kedge_runtime.fitting import candidates, images
    from kedge_runtime.pictures import find

    paths = _drawn(find(options["images"], "--images"), options["count"], options["seed"])
    given = {each.name: options[each.name] for each in fields(Request) if each.name in options}
    with progress.stage("load model"), quiet():
        subject = open_subject(Request(**given, folder=str(options["images"])))
    for note in subject.labelling.notes:
        progress.say(note)
    with progress.stage("read images", len(paths)) as tick:
        geometries = list(candidates.geometries(subject.height, subject.width))
        pictures = images.load(paths, search.start(subject), geometries, tick)
    if len(pictures.paths) < LEAST:
        raise UsageError(
            f"--images: {options['images']}: {len(pictures.paths)} readable images, at least "
            f"{LEAST} are needed"
        )
    if pictures.broken:
        progress.say(f"skipped {len(pictures.broken)} unreadable, as {pictures.broken[0].name}")
    classes = _classes(subject, pictures.paths, options["truth"])
    with quiet():
        return search.find(subject, pictures, classes, progress)


def _drawn(paths: list[Path], count: int, seed: int) -> list[Path]:
    """Return at most `count` of the paths, in a random order."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(paths))[:count]
    return [paths[i] for i in order]


def _classes(subject: "Subject", paths: Sequence[Path], how: str) -> "Classes | None":
    """Return the index of each image's true output, or None when nothing tells it."""
    import numpy as np

    from kedge_runtime.truth import truth_by

    truth = truth_by(how, paths, subject.labelling.labels)
    offset = subject.output.label_offset
    return None if truth is None else np.array([truth[path] + offset for path in paths], np.int64)
