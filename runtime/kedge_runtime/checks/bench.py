"""Time each step of a classification on this machine, from the file to the result.

A round classifies one image twice: in one call, and step by step with a clock between the steps. A
case is an artefact on an engine with a number of threads. Each case runs in its own process, so
that its peak memory is its own.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import field, replace
from functools import partial
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
from kedge_runtime.classify.arguments import CallOptions
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import check_finite, probabilities
from kedge_runtime.engines.choice import ENGINES, EngineOptions, open_engine
from kedge_runtime.engines.isolated import death_message, describe_exit
from kedge_runtime.errors import DiedError, UsageError
from kedge_runtime.files import temporary_folder
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.ahead import answered
from kedge_runtime.image.decode import read_bytes
from kedge_runtime.output import percent, quiet

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust

ROUNDS, WARM_UP = 50, 10
# The ratio of the second half's time to the first's from which a note is given.
DRIFT = 1.15

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class BenchCase:
    """One artefact on one engine; None is the default of the engine or of the machine."""

    artefact: Path
    engine: str | None = None
    threads: int | None = None
    delegate: str | None = None
    contract: Contract | None = None
    trust: "Trust | None" = None

    def open(self, *, copies: bool = False) -> Classifier:
        """Load it; `copies`: of EngineOptions. Raises ArtefactError, EngineError, UsageError."""
        # Not isolated: the case has its own process, and a second one would be timed too.
        options = replace(self.options, copies=copies)
        return Classifier.of(self._content(), options, self.contract)

    def _content(self) -> ModelContent:
        return read_content(self.artefact, trust=self.trust)

    @property
    def options(self) -> EngineOptions:
        """The options of its engine."""
        return EngineOptions(self.threads, self.delegate, self.engine)

    def probe(self) -> None:
        """Run an unsealed file once, isolated. Raises EngineError or DiedError."""
        if self.contract is not None:
            open_engine(self._content(), replace(self.options, isolate=True)).warm_up()


@dataclass(frozen=True)
class Plan:
    """What to time: `rounds` images, cycling through `images`, after `warm_up` untimed ones."""

    images: tuple[Path, ...]
    rounds: int = ROUNDS
    warm_up: int = WARM_UP


@dataclass(frozen=True)
class Timing:
    """The measurement of one case.

    `stages`: seconds per round of each step, [rounds], in their order; `total`: those of the whole
    call, `classifier(path)`. `peak`: the process's peak resident memory in bytes, 0 where it is
    unknown. `engine`, `library`, `precision`: what ran. `note`: the engine's remark. `folder`:
    images a second in a thread for each core, as `kedge classify` runs over a folder.
    """

    case: BenchCase
    engine: str
    library: str
    precision: str
    stages: dict[str, Seconds] = field(repr=False)
    total: Seconds = field(repr=False)
    peak: int
    note: str = ""
    folder: float = 0.0

    @property
    def threads(self) -> int:
        """The number of the engine's threads."""
        return EngineOptions(self.case.threads).thread_count

    @property
    def accounted(self) -> float:
        """The sum of the steps as a share of the whole call, both as medians over the rounds."""
        return float(np.median(sum(self.stages.values())) / np.median(self.total))

    @property
    def drift(self) -> float:
        """The median time of the second half of the rounds, divided by that of the first."""
        halves = np.array_split(self.total, 2)
        return float(np.median(halves[1]) / np.median(halves[0]))


def cases(
    base: BenchCase, engines: Sequence[str], threads: Sequence[int | None]
) -> Iterator[BenchCase]:
    """Yield a case for every engine that runs the format, with every number of threads.

    No engines means the format's default. Raises UsageError when none of them runs it.
    """
    format = format_of(base.artefact)
    able: list[str | None] = [name for name in engines if format in ENGINES[name].formats]
    if engines and not able:
        allowed = ", ".join(name for name, kind in ENGINES.items() if format in kind.formats)
        raise UsageError(f"--engine: none of them runs {base.artefact}; allowed are {allowed}")
    for engine, count in product(able or [None], threads):
        yield replace(base, engine=engine, threads=count)


@contextmanager
def images_for(
    images: Sequence[Path], sealed: Sequence[Path], trust: "Trust | None" = None
) -> Iterator[tuple[Path, ...]]:
    """Yield the images to time: those given, else the golden images of sealed files, as files.

    `trust`: the demanded signature. Raises UsageError when there are no images, ArtefactError for
    a file that changed after sealing.
    """
    if images:
        yield tuple(images)
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
            raise UsageError("the artefacts have no golden images: give IMAGE")
        yield tuple(paths)


def measure_apart(case: BenchCase, plan: Plan) -> Timing:
    """Time one case in a fresh process. Raises DiedError when that process dies."""
    case.probe()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        running = pool.submit(_measure_quietly, case, plan)
        (process,) = pool._processes.values()  # nothing else has its exit code
        try:
            return running.result()
        except BrokenProcessPool:
            process.join()
            reason = describe_exit(process.exitcode or 0)
            raise DiedError(death_message(case.artefact, reason)) from None


def _measure_quietly(case: BenchCase, plan: Plan) -> Timing:
    with quiet():
        return measure(case, plan)


def measure(case: BenchCase, plan: Plan) -> Timing:
    """Time one case in this process. Raises what opening and classifying raise."""
    classifier = case.open()
    features = classifier.contract.output.kind == "features"
    call = classifier.features if features else classifier
    stages = steps(classifier)
    images = list(islice(cycle(plan.images), plan.warm_up + plan.rounds))
    turns = [_round(call, stages, image, turn) for turn, image in enumerate(images)]
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
        folder=_per_second(case, images[plan.warm_up :]),
    )


def _per_second(case: BenchCase, images: Sequence[Path]) -> float:
    """Return the images a second of one pass over them, in a thread for each core."""
    classifier = case.open(copies=True)
    classifier.engine.warm_up()
    features = classifier.contract.output.kind == "features"
    prepare = classifier.prepared_features if features else _prepared(classifier)
    began = perf_counter()
    with answered(prepare, images) as answers:
        for _, answer in answers:
            answer()
    return len(images) / (perf_counter() - began)


def _prepared(classifier: Classifier) -> Callable[[Path], Callable[[], Any]]:
    return partial(classifier.prepared_result, options=CallOptions())


Step = Callable[[Any], Any]


def steps(classifier: Classifier) -> dict[str, Step]:
    """Return the steps of a classification by name; each takes the result of the one before."""
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


def _head(classifier: Classifier) -> Step:
    output = classifier.contract.output
    if output.kind == "features":
        return lambda raw: check_finite(classifier.numbers(raw))
    return lambda raw: classifier.classes.result(
        probabilities(check_finite(classifier.numbers(raw)), output)
    )


def _round(call: Step, stages: dict[str, Step], image: Path, turn: int) -> list[float]:
    """Return the seconds of the whole call and of each step, on one image."""
    # The second finds warm caches, so the order alternates.
    if turn % 2:
        parts = _clocked(list(stages.values()), image)
        return _clocked([call], image) + parts
    return _clocked([call], image) + _clocked(list(stages.values()), image)


def _clocked(steps: list[Step], value: Any) -> list[float]:
    """Return the seconds of each step; each takes the result of the one before."""
    clock = [perf_counter()]
    for step in steps:
        value = step(value)
        clock.append(perf_counter())
    return [after - before for before, after in pairwise(clock)]


def notes(timings: Sequence[Timing], machine: Machine) -> list[str]:
    """Return the reasons to doubt the figures: the clock, heat, and cases that slowed down."""
    findings = [hardware.clock(machine), hardware.temperature(machine)]
    lines = [f"{finding.detail}; {finding.fix}" for finding in findings if finding.state != "ok"]
    lines += dict.fromkeys(f"{each.case.artefact}: {each.note}" for each in timings if each.note)
    slower = [i for i, timing in enumerate(timings, 1) if timing.drift > DRIFT]
    return lines + [
        f"case {i} slowed down by {percent(timings[i - 1].drift - 1, 0)} while it ran: "
        "the processor was throttled or another program ran; measure again"
        for i in slower
    ]


def peak_memory() -> int:
    """Return this process's peak resident memory in bytes, or 0 where it is unknown."""
    # getrusage's figure starts at the memory of the parent that forked the process.
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return _peak_by_rusage()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(peak[1]) << 10 if peak else 0


def _peak_by_rusage() -> int:
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
