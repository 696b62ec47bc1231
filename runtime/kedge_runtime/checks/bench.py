"""What each step of a classification costs on this machine, from the file to the answer.

A round classifies one picture twice: as a user does, and step by step with a clock between the
steps. Each case, an artefact on an engine with so many threads, is measured in a process of its
own, so that its peak memory is its own.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, islice, pairwise, product
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.artefact.content import ModelContent, format_of, read_content
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.checks import hardware
from kedge_runtime.checks.hardware import Machine
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.outputs import check_finite, probabilities
from kedge_runtime.engines.choice import ENGINES, EngineOptions, open_engine
from kedge_runtime.engines.isolated import death_message, describe_exit
from kedge_runtime.errors import DiedError, UsageError
from kedge_runtime.files import temporary_folder
from kedge_runtime.image.decode import read_bytes
from kedge_runtime.output import quiet

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust

ROUNDS, WARM_UP = 50, 10
# How much slower the second half may be than the first before it is said.
DRIFT = 1.15

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class BenchCase:
    """One way to run one artefact; None is the default of the engine or of the machine."""

    artefact: Path
    engine: str | None = None
    threads: int | None = None
    delegate: str | None = None
    contract: Contract | None = None
    trust: "Trust | None" = None

    def open(self) -> Classifier:
        """Load it. Raises ArtefactError, EngineError, UsageError."""
        # The case has a process already; a second one would be timed too.
        return Classifier.of(self._content(), self.options, self.contract)

    def _content(self) -> ModelContent:
        return read_content(self.artefact, trust=self.trust)

    @property
    def options(self) -> EngineOptions:
        """How its engine is opened."""
        return EngineOptions(self.threads, self.delegate, self.engine)

    def probe(self) -> None:
        """Run a file without a seal once, isolated. Raises EngineError, DiedError among them."""
        if self.contract is not None:
            open_engine(self._content(), replace(self.options, isolate=True)).warm_up()


@dataclass(frozen=True)
class Plan:
    """What is timed: `rounds` pictures, taken from `pictures` in turn, after `warm_up` others."""

    pictures: tuple[Path, ...]
    rounds: int = ROUNDS
    warm_up: int = WARM_UP


@dataclass(frozen=True)
class Timing:
    """What one case took.

    `stages`: seconds per round of each step, [rounds], in their order; `total`: the same of the
    whole call, `classifier(path)`. `peak`: the process's peak resident memory in bytes, 0 where it
    can't be told. `engine`, `library`, `precision`: what ran. `note`: what the engine said of it.
    """

    case: BenchCase
    engine: str
    library: str
    precision: str
    stages: dict[str, Seconds] = field(repr=False)
    total: Seconds = field(repr=False)
    peak: int
    note: str = ""

    @property
    def threads(self) -> int:
        """How many threads the engine was given."""
        return EngineOptions(self.case.threads).thread_count

    @property
    def accounted(self) -> float:
        """The steps' sum as a share of the whole call, by their medians over the rounds."""
        return float(np.median(sum(self.stages.values())) / np.median(self.total))

    @property
    def drift(self) -> float:
        """How many times longer the second half of the rounds took than the first, by medians."""
        halves = np.array_split(self.total, 2)
        return float(np.median(halves[1]) / np.median(halves[0]))


def steps(classifier: Classifier) -> dict[str, Callable[[Any], Any]]:
    """Return the steps of a classification by name: each takes what the one before gave."""
    plan, engine = classifier.preprocessor, classifier.engine
    return {
        "read": read_bytes,
        "decode": plan.read,
        "resize": plan.fit,
        "table": plan.look_up,
        "set": engine.set,
        "invoke": lambda _: engine.invoke(),
        "get": lambda _: engine.get(),
        "head": _head(classifier),
    }


def _head(classifier: Classifier) -> Callable[[Any], Any]:
    output = classifier.contract.output
    if output.kind == "features":
        return lambda raw: check_finite(classifier.numbers(raw))
    return lambda raw: classifier.classes.result(
        probabilities(check_finite(classifier.numbers(raw)), output)
    )


def notes(timings: Sequence[Timing], machine: Machine) -> list[str]:
    """Return what makes the figures doubtful: the clock, heat, and cases that slowed down."""
    findings = [hardware.clock(machine), hardware.temperature(machine)]
    said = [f"{found.detail}; {found.fix}" for found in findings if found.state != "ok"]
    said += dict.fromkeys(f"{each.case.artefact}: {each.note}" for each in timings if each.note)
    slower = [i for i, timing in enumerate(timings, 1) if timing.drift > DRIFT]
    return said + [
        f"case {i} slowed down by {timings[i - 1].drift - 1:.0%} while it ran: "
        "throttled, or something else ran; measure again"
        for i in slower
    ]


def measure(case: BenchCase, plan: Plan) -> Timing:
    """Time one case in this process. Raises what opening and classifying do."""
    classifier = case.open()
    features = classifier.contract.output.kind == "features"
    call = classifier.features if features else classifier
    stages = steps(classifier)
    pictures = list(islice(cycle(plan.pictures), plan.warm_up + plan.rounds))
    turns = [_round(call, stages, picture, turn) for turn, picture in enumerate(pictures)]
    rows = np.array(turns)[plan.warm_up :]
    return Timing(
        case=case,
        engine=classifier.engine.name,
        library=classifier.engine.library,
        precision=classifier.contract.provenance.precision,
        stages=dict(zip(stages, rows[:, 1:].T, strict=True)),
        total=rows[:, 0],
        peak=peak_memory(),
        note=classifier.engine.note,
    )


Step = Callable[[Any], Any]


def _round(call: Step, stages: dict[str, Step], picture: Path, turn: int) -> list[float]:
    """Return the seconds of the whole call and of each step, on one picture."""
    # Whoever comes second finds the caches warm, so they take turns.
    if turn % 2:
        parts = _clocked(list(stages.values()), picture)
        return _clocked([call], picture) + parts
    return _clocked([call], picture) + _clocked(list(stages.values()), picture)


def _clocked(line: list[Step], value: Any) -> list[float]:
    """Return the seconds of each step of a line, where each takes what the one before gave."""
    clock = [perf_counter()]
    for step in line:
        value = step(value)
        clock.append(perf_counter())
    return [after - before for before, after in pairwise(clock)]


def measure_apart(case: BenchCase, plan: Plan) -> Timing:
    """Time one case in a fresh process. Raises EngineError as well when that process dies."""
    case.probe()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        running = pool.submit(_silently, case, plan)
        (process,) = pool._processes.values()  # by no other way is its end told
        try:
            return running.result()
        except BrokenProcessPool:
            process.join()
            reason = describe_exit(process.exitcode or 0)
            raise DiedError(death_message(case.artefact, reason)) from None


def _silently(case: BenchCase, plan: Plan) -> Timing:
    with quiet():
        return measure(case, plan)


def cases(
    base: BenchCase, engines: Sequence[str], threads: Sequence[int | None]
) -> Iterator[BenchCase]:
    """Yield a case on every engine that runs its format, with every number of threads.

    No engines means the format's own. Raises UsageError when none of them runs it.
    """
    form = format_of(base.artefact)
    able: list[str | None] = [name for name in engines if form in ENGINES[name].formats]
    if engines and not able:
        known = ", ".join(name for name, kind in ENGINES.items() if form in kind.formats)
        raise UsageError(f"--engine: none of them runs {base.artefact}; {known} would")
    for engine, count in product(able or [None], threads):
        yield replace(base, engine=engine, threads=count)


@contextmanager
def pictures_for(
    given: Sequence[Path], sealed: Sequence[Path], trust: "Trust | None" = None
) -> Iterator[tuple[Path, ...]]:
    """Give the pictures to time with: those given, else the sealed files' golden ones, as files.

    `trust`: the signature that is demanded. Raises UsageError when there are none, ArtefactError
    for a file that isn't what was sealed.
    """
    if given:
        yield tuple(given)
        return
    contents = chain.from_iterable(
        read_artefact(path, trust=trust).golden.images for path in sealed
    )
    with temporary_folder() as folder:
        paths = []
        for i, content in enumerate(dict.fromkeys(contents), 1):
            paths.append(folder / f"golden {i}.jpg")
            paths[-1].write_bytes(content)
        if not paths:
            raise UsageError("there are no golden pictures in the artefacts: name some of your own")
        yield tuple(paths)


def peak_memory() -> int:
    """Return this process's peak resident memory in bytes, or 0 where it can't be told."""
    # getrusage's figure begins with the memory of the parent that forked the process.
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return _peak_by_rusage()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) << 10 if found else 0


def _peak_by_rusage() -> int:
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
