"""`kedge fit-input`: find a preprocessing, and show it as tables or JSON."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from rich import box
from rich.console import Console
from rich.table import Table

from kedge_convert.fitting.search import InputFit, Ranking
from kedge_convert.load.request import SourceRequest
from kedge_convert.worker.process import ended_by_signals
from kedge_runtime.artefact.contract import Kind
from kedge_runtime.drift.intervals import wilson
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.fitting.candidates import InputCandidate
from kedge_runtime.fitting.scores import MARGIN, Score, accuracy_lost
from kedge_runtime.image.pipelines import PIPELINES
from kedge_runtime.output import echo_json
from kedge_runtime.printable import printable

if TYPE_CHECKING:
    from kedge_convert.fitting.subject import Subject
    from kedge_convert.worker.progress import Progress
    from kedge_runtime.arrays import Indices
    from kedge_runtime.fitting.candidates import Images

COUNT = 200
LEAST = 10
INCONCLUSIVE = 3
TRUTH = "auto"


@dataclass(frozen=True)
class FitInputOptions:
    """Hold the command's options as click reads them."""

    model: str
    images: Path
    truth: str
    labels: str | None
    count: int
    seed: int
    card: str | None
    weights: str
    head: Kind | None
    size: str | None
    as_json: bool

    @property
    def request(self) -> SourceRequest:
        """The request to load the model."""
        return SourceRequest(
            self.model,
            weights=self.weights,
            card=self.card,
            labels=self.labels,
            head=self.head,
            size=self.size,
            folder=str(self.images),
        )


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
@click.option(
    "--labels",
    help="Class names: a file with one class a line, or imagenet; instead of the card's.",
)
@click.option(
    "--count",
    default=COUNT,
    show_default=True,
    type=click.IntRange(min=LEAST),
    help="Images to use, drawn at random.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the draw.")
@click.option(
    "--card", help="Keras application that MODEL was built from; `kedge models` lists them."
)
@click.option(
    "--weights",
    default=SourceRequest.weights,
    show_default=True,
    help="For a card: imagenet (downloaded) or a weights file.",
)
@click.option("--head", type=click.Choice(get_args(Kind)), help="Output type, as for convert.")
@click.option("--size", help="Input size of a MODEL without one: 224 or 160x192 (height x width).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(**values: Any) -> int:
    """Find the preprocessing that MODEL was trained with.

    The model answers the images with every known normalisation, colour order and geometry. The
    last line of the report has the options for `kedge convert`.

    Exit codes: 0 found, 2 usage error, 3 several normalisations are still possible.
    """
    from kedge_convert.worker.progress import Progress

    options = FitInputOptions(**values)
    with ended_by_signals(), Progress(silent=options.as_json) as progress:
        fit = _fit(options, progress)
    if options.as_json:
        echo_json(plain(fit, options))
    else:
        page(fit)
    return 0 if fit.decided else INCONCLUSIVE


def _fit(options: FitInputOptions, progress: "Progress") -> "InputFit":
    from kedge_convert.fitting import search
    from kedge_convert.fitting.subject import open_subject
    from kedge_runtime.fitting import candidates
    from kedge_runtime.image.folder import find_images
    from kedge_runtime.output import quiet

    paths = _drawn(find_images(options.images, "--images"), options)
    with progress.stage("load model"), quiet():
        subject = open_subject(options.request)
    for note in subject.labelling.notes:
        progress.say(note)
    with progress.stage("read images", len(paths)) as tick:
        geometries = list(candidates.geometries(subject.height, subject.width))
        images = candidates.load(paths, search.start(subject), geometries, tick)
    _check_images(images, options)
    if images.broken:
        unreadable = counted(len(images.broken), "unreadable image")
        progress.say(f"skipped {unreadable}, for example {images.broken[0].name}")
    classes = _classes(subject, images.paths, options.truth)
    with quiet():
        return search.find(subject, images, classes, progress)


def _check_images(images: "Images", options: FitInputOptions) -> None:
    if len(images.paths) < LEAST:
        raise UsageError(
            f"--images: {options.images}: {counted(len(images.paths), 'readable image')}, at least "
            f"{LEAST} are needed"
        )


def _drawn(paths: list[Path], options: FitInputOptions) -> list[Path]:
    """Return at most `count` of the paths, in a random order."""
    import numpy as np

    order = np.random.default_rng(options.seed).permutation(len(paths))[: options.count]
    return [paths[i] for i in order]


def _classes(subject: "Subject", paths: Sequence[Path], how: str) -> "Indices | None":
    """Return the index of each image's true output, or None without ground truth."""
    import numpy as np

    from kedge_runtime.drift.truth import truth_by

    truth = truth_by(how, paths, subject.labelling.labels)
    offset = subject.output.label_offset
    return None if truth is None else np.array([truth[path] + offset for path in paths], np.int64)


Interval = tuple[float, float]
WIDTH = 80  # columns
MORE = 4  # times as many images halve an interval


def accuracy(score: Score) -> tuple[float, Interval] | None:
    """Return the share of images that is right, and its 95 % interval."""
    if score.right is None:
        return None
    low, high = wilson(score.right.sum(), len(score.right))
    return float(score.right.mean()), (float(low), float(high))


def difference(score: Score, best: Score) -> tuple[float, Interval] | None:
    """Return the accuracy minus the best one's on the same images, and its 95 % interval."""
    if score.right is None or best.right is None:
        return None
    low, high = accuracy_lost(score, best)
    other = best.right[: len(score.right)]
    return float(score.right.mean() - other.mean()), (-high, -low)


def page(fit: InputFit) -> None:
    """Print the tables, 80 columns wide, the result in words, and the options to copy."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = max(console.width, WIDTH)
    console.print(_table(fit.normalisations, "normalisation", _normalisation))
    if fit.geometries:
        console.print(_table(fit.geometries, "geometry", _geometry))
    *sentences, flags = summary(fit)
    for line in sentences:  # a terminal breaks a line between words, a log keeps it whole
        console.print(printable(line), soft_wrap=not console.is_terminal)
    console.print(flags, soft_wrap=True)


def summary(fit: InputFit) -> Iterator[str]:
    """Yield the result, a line each; the last line has the options to copy."""
    best = fit.normalisations.best.candidate
    if fit.labelled:
        yield "in brackets: 95 % intervals; `to the best` is in points of accuracy (paired)"
    yield from _normalisation_summary(fit)
    if fit.geometries is None:
        yield (
            "ground truth: none. The ranking uses the confidence, variety and stability of the "
            "answers, and the batch norms. That is weaker: put the images in one folder for "
            "each class, or give --truth FILE."
        )
        yield "geometry: undecided without ground truth"
        yield best.normalisation_flags
        return
    yield from _geometry_summary(fit.geometries)
    yield fit.winner.flags


def _normalisation_summary(fit: InputFit) -> Iterator[str]:
    ranking = fit.normalisations
    best = ranking.best.candidate
    if not fit.informative:
        yield (
            "normalisation: undecided, no candidate is better than chance. Check the order of the "
            "classes (--labels), and that the images are of the model's classes."
        )
    elif ranking.decided:
        yield f"normalisation: {best.formula} ({best.normalisation_flags})"
    else:
        rivals = "; ".join(one.candidate.formula for one in ranking.possible)
        count = MORE * len(ranking.best.values)
        yield (
            f"normalisation: undecided on {counted(len(ranking.best.values), 'image')} between "
            f"{rivals}. Give about {count} labelled images."
        )
    if len(ranking.same) > 1:
        others = "; ".join(one.candidate.formula for one in ranking.same[1:])
        yield f"same answers as with {best.formula}: {others}"
    if fit.subject.normaliser:
        yield f"the model normalises bytes itself ({fit.subject.normaliser})"


def _geometry_summary(ranking: Ranking) -> Iterator[str]:
    best = ranking.best
    names = " = ".join(best.candidate.pipelines)
    if ranking.decided:
        yield f"geometry: {names} ({_how(best.candidate)})"
        return
    out = [one for one in ranking.scores if one not in ranking.possible]
    yield (
        f"geometry: undecided on {counted(len(best.values), 'image')}. Possible, with an interval "
        f"that reaches -{100 * MARGIN:.0f} points: {_names(ranking.possible)}. "
        + (f"Ruled out: {_names(out)}. " if out else "None is ruled out. ")
        + "A wrong geometry can score higher: use the one you trained with."
    )


def _names(scores: Sequence[Score]) -> str:
    return "; ".join(" = ".join(one.candidate.pipelines) for one in scores)


def _how(candidate: InputCandidate) -> str:
    return "; ".join(PIPELINES[name].code for name in candidate.pipelines)


def _normalisation(candidate: InputCandidate) -> tuple[str, ...]:
    return candidate.normalisation, candidate.colour


def _geometry(candidate: InputCandidate) -> tuple[str, ...]:
    return ("\n".join(candidate.pipelines),)


def _table(
    ranking: Ranking, name: str, words: Callable[[InputCandidate], tuple[str, ...]]
) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for column in (name, "colour") if name == "normalisation" else (name,):
        grid.add_column(column, no_wrap=True)
    for column in ("images", "right, %", "to the best", "nats"):
        grid.add_column(column, justify="right", no_wrap=True)
    grid.add_column("", no_wrap=True)
    for score in ranking.scores:
        grid.add_row(*words(score.candidate), *_figures(score, ranking), _mark(score, ranking))
    return grid


def _mark(score: Score, ranking: Ranking) -> str:
    if score is ranking.best:
        return "best"
    if score in ranking.same:
        return "same"
    return "possible" if score in ranking.possible else ""


def _figures(score: Score, ranking: Ranking) -> Iterator[str]:
    yield str(len(score.values))
    for figure, sign in ((accuracy(score), ""), (difference(score, ranking.best), "+")):
        if figure is None or (sign and score is ranking.best):
            yield "-"
        else:
            value, (low, high) = figure
            share, least, most = 100 * value, 100 * low, 100 * high
            yield f"{share:{sign}.0f} ({least:{sign}.0f} to {most:{sign}.0f})"
    yield f"{score.mean:.2f}"


def plain(fit: InputFit, options: FitInputOptions) -> dict[str, Any]:
    """Return the documented object (docs/json.md)."""
    winner = fit.winner
    return {
        "schema": 1,
        "command": "fit-input",
        "model": options.model,
        "folder": str(options.images),
        "images": len(fit.images.paths),
        "unreadable": [str(path) for path in fit.images.broken],
        "labelled": fit.labelled,
        "normalises_itself": fit.subject.normaliser,
        "decided": fit.decided,
        "normalisation": winner.normalisation,
        "colour": winner.colour,
        "pipelines": list(winner.pipelines) if fit.geometries else None,
        "flags": winner.flags if fit.geometries else winner.normalisation_flags,
        "normalisations": _rows(fit.normalisations),
        "geometries": None if fit.geometries is None else _rows(fit.geometries),
    }


def _rows(ranking: Ranking) -> list[dict[str, Any]]:
    return [_row(score, ranking) for score in ranking.scores]


def _row(score: Score, ranking: Ranking) -> dict[str, Any]:
    right, to_best = accuracy(score), difference(score, ranking.best)
    geometry = score.candidate.input.geometry
    return {
        "normalisation": score.candidate.normalisation,
        "colour": score.candidate.colour,
        "pipelines": list(score.candidate.pipelines),
        "resize": geometry.resize,
        "fit": geometry.fit,
        "images": len(score.values),
        "accuracy": right and right[0],
        "accuracy_interval": right and list(right[1]),
        "difference": to_best and to_best[0],
        "difference_interval": to_best and list(to_best[1]),
        "nats": score.mean,
        "possible": score in ranking.possible,
        "same": score in ranking.same,
    }
