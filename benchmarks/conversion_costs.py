"""What conversions cost: `kedge convert` beside the stock scripts for the same targets."""

import resource
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import peak
import stock_scripts

SCRIPT = Path(stock_scripts.__file__)


@dataclass(frozen=True)
class ConvertedModel:
    """A Keras file, its card, and a folder of images to calibrate and check on."""

    path: Path
    card: str
    images: Path


@dataclass(frozen=True)
class ConversionCost:
    """Seconds by the clock, CPU seconds, and resident megabytes at once, children included."""

    time: float
    cpu: float
    memory: float


@dataclass(frozen=True)
class Way:
    """Targets of the stock scripts, and the options of `kedge convert` for the same ones.

    `limit`: the most of the scripts' time that kedge may take.
    """

    name: str
    targets: tuple[str, ...]
    options: tuple[str, ...]
    limit: float | None = None

    def scripts(self, costs: dict[str, ConversionCost]) -> ConversionCost:
        """Return the cost of its scripts, one after the other; `costs`: of each target's."""
        each = [costs[target] for target in self.targets]
        return ConversionCost(
            sum(one.time for one in each),
            sum(one.cpu for one in each),
            max(one.memory for one in each),
        )

    def kedge(self, model: ConvertedModel) -> ConversionCost:
        """Return the cost of kedge."""
        command = [sys.executable, "-m", "kedge_runtime.cli", "convert", str(model.path)]
        places = ["--calibrate", str(model.images), "--out", "out", "--card", model.card]
        return cost([*command, *places, *self.options])


INT8 = ("tflite:int8", "onnx:int8")
TO = ("--to", ",".join(INT8))
FAST = ("--effort", "fast")
WAYS = (
    Way("all targets", stock_scripts.TARGETS, ("--to", "all"), 0.6),
    Way("all targets, --effort fast", stock_scripts.TARGETS, ("--to", "all", *FAST), 0.35),
    Way("int8 in both formats", INT8, TO),
    Way("int8 in both formats, --effort fast", INT8, (*TO, *FAST)),
)


def turn(model: ConvertedModel) -> list[tuple[ConversionCost, ConversionCost]]:
    """Return the cost of the scripts and of kedge for each of WAYS; each script runs once."""
    places = [str(model.path), str(model.images)]
    costs = {
        target: cost([sys.executable, str(SCRIPT), target, *places])
        for target in stock_scripts.TARGETS
    }
    return [(way.scripts(costs), way.kedge(model)) for way in WAYS]


def cost(command: Sequence[str]) -> ConversionCost:
    """Run a command in a new folder to its end. AssertionError where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
        ran = peak.run(command, Path(folder))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ran.code == 0, f"{command}\n{ran.stderr}"
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return ConversionCost(perf_counter() - began, cpu, ran.peak / 1e6)
