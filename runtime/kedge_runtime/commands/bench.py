"""Time each step of a classification: the command `kedge bench`."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
from kedge_runtime.checks.hardware import Machine, identity
from kedge_runtime.commands.arguments import Batch, split
from kedge_runtime.commands.options import (
    EngineChoices,
    ForeignOptions,
    as_json,
    contract_options,
    engine_choices,
    trust_options,
)
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import ArtefactError, ContractError, EngineError, UsageError, counted
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.decode import read_image
from kedge_runtime.output import echo_json, echo_page, page, percent, quiet, say
from kedge_runtime.printable import printable

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust

TITLE, COLUMN, WIDTH = 14, 9, 80
# What each step does.
STEPS = {
    "read": "read the bytes of the file",
    "decode": "decode the image",
    "resize": "crop and resize it",
    "table": "normalise: look up each byte",
    "set": "copy the input into the engine",
    "invoke": "run the model",
    "get": "copy the output out of it",
    "head": "probabilities and best classes",
}
MAX_ROUNDS = 1_000_000
A_BLOCK = (WIDTH - TITLE) // COLUMN  # columns

Failed = list[dict[str, str]]


@dataclass(frozen=True)
class BenchOptions:
    """The options of `kedge bench`."""

    arguments: tuple[str, ...]
    engine: EngineChoices
    foreign: ForeignOptions
    trust: "Trust | None"
    rounds: int | None
    warm_up: int
    as_json: bool


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="ARTEFACT... [IMAGE...]")
@engine_choices
@contract_options
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
    help="Untimed images before the first timed one.",
)
@as_json
def bench(**options: Any) -> int:
    """Time each step of a classification, from the file to the answer.

    Artefacts, engines and numbers of threads are shown side by side, each measured in its own
    process. IMAGE is a file, a folder or a 'pattern/*.jpg' in quotes. The default is the golden
    images of the artefacts. They are small: your own may take longer to decode.
    """
    return run(BenchOptions(**options))


def run(options: BenchOptions) -> int:
    """Time all cases and print the figures; return the exit code."""
    failed: Failed = []
    artefacts, paths = split(options.arguments, optional=True)
    bases = _bases(artefacts, options, failed)
    images = _readable(paths, failed)
    if not bases:
        return 2
    choices, timings = options.engine, list[Timing]()
    runs = [case for base in bases for case in cases(base, choices.engines, choices.threads)]
    sealed = [base.artefact for base in bases if base.contract is None]
    with images_for(images, sealed, options.trust) as timed:
        plan = Plan(timed, options.rounds or max(ROUNDS, len(timed)), options.warm_up)
        for case in runs:
            with _skipping(case.artefact, failed):
                timings.append(measure_apart(case, plan))
    doubts = notes(timings, Machine())
    if options.as_json:
        echo_json(_payload(timings, failed, doubts, plan))
    elif timings:
        echo_page(table(timings))
    for doubt in doubts:
        say(doubt)
    return 2 if failed else 0


def _bases(artefacts: Sequence[Path], options: BenchOptions, failed: Failed) -> list[BenchCase]:
    """Return a case per artefact; report and skip other files."""
    foreign, delegate = options.foreign, options.engine.delegate
    bases = []
    for path in artefacts:
        with _skipping(path, failed):
            model = ModelFile(read_content(path, trust=options.trust))
            command = f"kedge bench {shlex.quote(str(path))}"
            contract = foreign.contract(model, EngineOptions(delegate=delegate), command)
            if contract is None:
                artefact_of(model.content)
            bases.append(BenchCase(path, None, None, delegate, contract, options.trust))
    if bases:
        foreign.refuse_all_sealed(base.contract is None for base in bases)
    return bases


@contextmanager
def _skipping(artefact: Path, failed: Failed) -> Iterator[None]:
    """Report an artefact that can't be read or run, and leave the block."""
    try:
        yield
    except (ArtefactError, ContractError, EngineError) as error:
        failed.append({"artefact": str(artefact), "error": str(error)})
        say(error)


def _readable(paths: Iterable[Path], failed: Failed) -> tuple[Path, ...]:
    """Return the readable images. Raises UsageError when none of several can be read."""
    batch, images = Batch(), []
    for path in paths:
        with batch.skipping(path), quiet():
            read_image(path)
            images.append(path)
    failed += batch.failed
    if batch.failed and not images:
        raise UsageError("none of the images can be read: give others")
    return tuple(images)


def table(timings: Sequence[Timing]) -> str:
    """Return the numbered cases and their figures below, in 80 columns."""
    legend = [f"case {i}: {_title(timing)}" for i, timing in enumerate(timings, 1)]
    blocks = [
        _block(timings[start : start + A_BLOCK], start + 1)
        for start in range(0, len(timings), A_BLOCK)
    ]
    return "\n\n".join([page(legend), *blocks])


def _title(timing: Timing) -> str:
    name = printable(timing.case.artefact.name)
    delegate = f", {timing.case.delegate}" if timing.case.delegate else ""
    title = f", {timing.engine}, {counted(timing.threads, 'thread')}{delegate}"
    room = WIDTH - len("case 12: ") - len(title)
    return (name if len(name) <= room else "…" + name[1 - room :]) + title


def _block(timings: Sequence[Timing], first: int) -> str:
    numbers = [f"case {i}" for i in range(first, first + len(timings))]
    stages = {
        name: [f"{_median(timing.stages[name]):.3f}" for timing in timings]
        for name in timings[0].stages
    }
    totals = {
        "end to end": [f"{_median(timing.total):.3f}" for timing in timings],
        "90 % below": [f"{_p90(timing.total):.3f}" for timing in timings],
        "accounted for": [percent(timing.accounted) for timing in timings],
        "per second": [f"{1e3 / _median(timing.total):.0f}" for timing in timings],
        "folder, per s": [f"{timing.folder:.0f}" for timing in timings],
        "peak memory": [f"{timing.peak / 1e6:.0f} MB" for timing in timings],
    }
    spare = WIDTH - TITLE - COLUMN * len(timings)
    line = "-" * (TITLE + COLUMN * len(timings))
    return "\n".join(
        [
            _row("median, ms", numbers),
            *(_row(name, cells, STEPS[name], spare) for name, cells in stages.items()),
            line,
            *(_row(name, cells) for name, cells in totals.items()),
        ]
    )


def _row(title: str, cells: Sequence[str], meaning: str = "", spare: int = 0) -> str:
    """Return a row; what it means stands behind it where `spare` columns are enough."""
    row = f"{title:<{TITLE}}" + "".join(f"{cell:>{COLUMN}}" for cell in cells)
    return f"{row}  {meaning}" if meaning and len(meaning) + 2 <= spare else row


def _median(seconds: Seconds) -> float:
    return float(np.median(seconds)) * 1e3


def _p90(seconds: Seconds) -> float:
    return float(np.percentile(seconds, 90)) * 1e3


def _payload(
    timings: Sequence[Timing], failed: Failed, doubts: Sequence[str], plan: Plan
) -> dict[str, Any]:
    """Return the documented object (docs/json.md)."""
    return {
        "schema": 1,
        "command": "bench",
        "machine": identity(),
        "notes": list(doubts),
        "images": len(plan.images),
        "rounds": plan.rounds,
        "warm_up": plan.warm_up,
        "cases": [_case(timing) for timing in timings],
        "failed": failed,
    }


def _case(timing: Timing) -> dict[str, Any]:
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
        "folder_per_second": round(timing.folder, 2),
        "peak_bytes": timing.peak,
    }


def _spread(seconds: Seconds) -> dict[str, float]:
    return {"median_ms": round(_median(seconds), 4), "p90_ms": round(_p90(seconds), 4)}
