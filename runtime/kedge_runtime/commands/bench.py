"""`kedge bench`."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.file import artefact_of
from kedge_runtime.artefact.foreign import ModelFile
from kedge_runtime.checks.bench import (
    ROUNDS,
    WARM_UP,
    BenchCase,
    Plan,
    Seconds,
    Timing,
    cases,
    images_for,
    measure_apart,
    notes,
)
from kedge_runtime.checks.hardware import Machine
from kedge_runtime.commands.answers import Batch, split
from kedge_runtime.commands.options import foreign_options, read_said, read_trust, trust_options
from kedge_runtime.engines.choice import ENGINES, EngineOptions
from kedge_runtime.errors import ArtefactError, ContractError, EngineError, UsageError
from kedge_runtime.identity import identity
from kedge_runtime.image.decode import read_image
from kedge_runtime.output import echo_json, page, say
from kedge_runtime.printable import printable

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust

TITLE, COLUMN, WIDTH = 14, 9, 80
MAX_ROUNDS = 1_000_000
A_BLOCK = (WIDTH - TITLE) // COLUMN  # columns


# click's types became generic in 8.3; kedge runs on older ones.
class Several(click.ParamType):  # type: ignore[type-arg]
    """Values separated by commas, each checked by another type."""

    def __init__(self, kind: Any) -> None:
        """Take the type of one value."""
        self.kind = kind
        self.name = kind.name

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[Any, ...]:
        """Return the values. Fails for an empty one and for what `kind` refuses."""
        if isinstance(value, tuple):
            return value
        return tuple(self.kind.convert(part.strip(), param, ctx) for part in value.split(","))


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="ARTEFACT... [IMAGE...]")
@click.option(
    "--engine",
    "engines",
    type=Several(click.Choice(list(ENGINES))),
    metavar="NAME,...",
    default=(),
    help=f"{', '.join(ENGINES)} [default: the format's].",
)
@click.option(
    "--threads",
    type=Several(click.IntRange(min=1)),
    metavar="N,...",
    default=(None,),
    help="Threads of the engine [default: all cores].",
)
@click.option("--delegate", help="edgetpu[:usb|pci|N], or a delegate's library.")
@click.option(
    "--contract",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="JSON",
    help="For artefacts that kedge didn't make.",
)
@foreign_options
@trust_options
@click.option(
    "--rounds",
    type=click.IntRange(2, MAX_ROUNDS),
    help=f"Images to time [default: {ROUNDS}, or all if more are given].",
)
@click.option(
    "--warm-up",
    type=click.IntRange(0, MAX_ROUNDS),
    default=WARM_UP,
    show_default=True,
    help="Images before the first that counts.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def bench(**options: Any) -> int:
    """Time every step of a classification, from the file to the answer.

    Artefacts, engines and numbers of threads stand side by side, each measured in a process of its
    own. IMAGE is a file, a folder or a 'pattern/*.jpg' in quotes; without one the golden images
    in the artefacts are taken, which are small: decoding your own may well take longer.
    """
    artefacts, words = split(options["words"], optional=True)
    failed: Failed = []
    trust = read_trust(options)
    bases = _bases(artefacts, options, trust, failed)
    images = _readable(words, failed)
    if not bases:
        return 2
    sealed = [base.artefact for base in bases if base.contract is None]
    with images_for(images, sealed, trust) as taken:
        plan = Plan(taken, options["rounds"] or max(ROUNDS, len(taken)), options["warm_up"])
        ways = [cases(base, options["engines"], options["threads"]) for base in bases]
        timings = _measured(list(chain.from_iterable(ways)), plan, failed)
    said = notes(timings, Machine())
    if options["as_json"]:
        _print_json(timings, failed, said, plan)
    elif timings:
        click.echo(table(timings))
    for note in said:
        say(note)
    return 2 if failed else 0


Failed = list[dict[str, str]]


def _bases(
    artefacts: Sequence[Path], options: dict[str, Any], trust: "Trust | None", failed: Failed
) -> list[BenchCase]:
    """Return a case per artefact; a file that is none is told and passed over."""
    said = read_said(options, EngineOptions(delegate=options["delegate"]))
    bases = []
    for path in artefacts:
        with _passed_over(path, failed):
            model = ModelFile(read_content(path, trust=trust))
            contract = said.contract(model, f"kedge bench {shlex.quote(str(path))}")
            if contract is None:
                artefact_of(model.content)
            bases.append(BenchCase(path, None, None, options["delegate"], contract, trust))
    if bases:
        said.refuse_all_sealed(base.contract is None for base in bases)
    return bases


@contextmanager
def _passed_over(artefact: Path, failed: Failed) -> Iterator[None]:
    """Tell what is wrong with an artefact, and go on."""
    try:
        yield
    except (ArtefactError, ContractError, EngineError) as error:
        failed.append({"artefact": str(artefact), "error": str(error)})
        say(error)


def _readable(words: Iterable[Path], failed: Failed) -> tuple[Path, ...]:
    """Return the images that can be read. Raises UsageError when there are none among some."""
    batch = Batch()
    found = tuple(path for path, _ in batch.run(words, read_image))
    failed += batch.failed
    if batch.failed and not found:
        raise UsageError("none of the images can be read: there is nothing to time")
    return found


def _measured(asked: Sequence[BenchCase], plan: Plan, failed: Failed) -> list[Timing]:
    """Time every case; one that no engine can run is told and passed over."""
    timings: list[Timing] = []
    for case in asked:
        with _passed_over(case.artefact, failed):
            timings.append(measure_apart(case, plan))
    return timings


def table(timings: Sequence[Timing]) -> str:
    """Return the cases by number and below them their figures, in 80 columns."""
    legend = [f"{i:>2}  {_title(timing)}" for i, timing in enumerate(timings, 1)]
    blocks = [
        _block(timings[start : start + A_BLOCK], start + 1)
        for start in range(0, len(timings), A_BLOCK)
    ]
    return "\n\n".join([page(legend), *blocks])


def _title(timing: Timing) -> str:
    name = printable(timing.case.artefact.name)
    threads = "1 thread" if timing.threads == 1 else f"{timing.threads} threads"
    delegate = f", {timing.case.delegate}" if timing.case.delegate else ""
    title = f", {timing.engine}, {threads}{delegate}"
    room = WIDTH - len("12  ") - len(title)
    return (name if len(name) <= room else "…" + name[1 - room :]) + title


def _block(timings: Sequence[Timing], first: int) -> str:
    numbers = [str(i) for i in range(first, first + len(timings))]
    rows = {
        name: [f"{_median(timing.stages[name]):.3f}" for timing in timings]
        for name in timings[0].stages
    }
    ends = {
        "end to end": [f"{_median(timing.total):.3f}" for timing in timings],
        "90 % below": [f"{_p90(timing.total):.3f}" for timing in timings],
        "accounted for": [f"{timing.accounted:.1%}" for timing in timings],
        "a second": [f"{1e3 / _median(timing.total):.0f}" for timing in timings],
        "peak memory": [f"{timing.peak / 1e6:.0f} MB" for timing in timings],
    }
    line = "-" * (TITLE + COLUMN * len(timings))
    return "\n".join(
        [
            _row("median, ms", numbers),
            *(_row(name, cells) for name, cells in rows.items()),
            line,
            *(_row(name, cells) for name, cells in ends.items()),
        ]
    )


def _row(title: str, cells: Sequence[str]) -> str:
    return f"{title:<{TITLE}}" + "".join(f"{cell:>{COLUMN}}" for cell in cells)


def _median(seconds: Seconds) -> float:
    return float(np.median(seconds)) * 1e3


def _p90(seconds: Seconds) -> float:
    return float(np.percentile(seconds, 90)) * 1e3


def _print_json(timings: Sequence[Timing], failed: Failed, said: Sequence[str], plan: Plan) -> None:
    """Print the documented object (docs/json.md)."""
    payload = {
        "schema": 1,
        "command": "bench",
        "machine": identity(),
        "notes": list(said),
        "images": len(plan.images),
        "rounds": plan.rounds,
        "warm_up": plan.warm_up,
        "cases": [_plain(timing) for timing in timings],
        "failed": failed,
    }
    echo_json(payload)


def _plain(timing: Timing) -> dict[str, Any]:
    return {
        "artefact": str(timing.case.artefact),
        "precision": timing.precision,
        "engine": timing.engine,
        "library": timing.library,
        "threads": timing.threads,
        "delegate": timing.case.delegate,
        "stages": {name: _spread(seconds) for name, seconds in timing.stages.items()},
        "end_to_end": _spread(timing.total),
        "accounted": round(timing.accounted, 4),
        "peak_bytes": timing.peak,
    }


def _spread(seconds: Seconds) -> dict[str, float]:
    return {"median_ms": round(_median(seconds), 4), "p90_ms": round(_p90(seconds), 4)}
