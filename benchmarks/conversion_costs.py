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

    def turn(self, model: ConvertedModel) -> tuple[ConversionCost, ConversionCost]:
        """Return the cost of the scripts, one after the other, and of kedge."""
        each = [
            cost([sys.executable, str(SCRIPT), target, *map(str, (model.path, model.images))])
            for target in self.targets
        ]
        scripts = ConversionCost(
            sum(one.time for one in each),
            sum(one.cpu for one in each),
            max(one.memory for one in each),
        )
        kedge = [sys.executable, "-m", "kedge_runtime.cli", "convert", str(model.path)]
        places = ["--calibrate", str(model.images), "--out", "out", "--card", model.card]
        return scripts, cost([*kedge, *places, *self.options])


INT8 = ("tflite:int8", "onnx:int8")
TO = tuple(word for target in INT8 for word in ("--to", target))
WAYS = (
    Way("all targets", stock_scripts.TARGETS, ("--to", "all"), 0.6),
    Way("int8 in both formats", INT8, TO),
    Way("int8 in both formats, --effort fast", INT8, (*TO, "--effort", "fast"), 0.35),
)


def cost(command: Sequence[str]) -> ConversionCost:
    """Run a command in a new folder to its end. AssertionError where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
        ran = peak.run(command, Path(folder))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ran.code == 0, f"{command}\n{ran.stderr}"
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return ConversionCost(perf_counter() - began, cpu, ran.peak / 1e6)
