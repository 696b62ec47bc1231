"""Show the result of `kedge fit-input`: tables and sentences, or the documented JSON object."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from kedge_convert.fitting.search import InputFit, Ranking
from kedge_runtime.drift.statistics import wilson
from kedge_runtime.errors import counted
from kedge_runtime.fitting.candidates import InputCandidate
from kedge_runtime.fitting.scores import MARGIN, Score, accuracy_lost
from kedge_runtime.image.pipelines import PIPELINES
from kedge_runtime.printable import printable

if TYPE_CHECKING:
    pass

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


def plain(fit: InputFit, model: str, folder: str) -> dict[str, Any]:
    """Return the documented object (docs/json.md)."""
    winner = fit.winner
    return {
        "schema": 1,
        "command": "fit-input",
        "model": model,
        "folder": folder,
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
