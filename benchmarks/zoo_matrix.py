"""Which application converts to which target, at what cost, and how exactly?

Converts every model of the zoo to every target, each model in a process of its own, the cheapest
first. A model's cells are written as soon as they are known, to results/zoo/<machine>/<model>.json;
what stands there is not run again without --redo. Then the table of all that stands there is
written, as results/zoo-<machine>.md and .json.

    python benchmarks/zoo_matrix.py --images DIR --weights none --calibrate 32 --check 32

`--weights none`: random weights settled on the images (random_weights.py, docs/zoo.md). They show
what converts, how fast and how exactly; their integer targets say nothing about trained weights.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import machine
import random_weights
import zoo_table
from kedge_convert import contract_builder
from kedge_convert.job import Job, Outcome, failed
from kedge_convert.load.request import SourceRequest
from kedge_convert.quantise.effort import DEFAULT, FAST
from kedge_convert.sampling import Sampling
from kedge_convert.targets import TARGETS, Target, parse_targets
from kedge_convert.verdict import UserLimits
from kedge_convert.worker import process, supervisor
from kedge_convert.worker.progress import Progress
from kedge_models import cards
from kedge_models.cards import Card, card
from kedge_runtime.errors import KedgeError, one_line
from kedge_runtime.files import write_whole
from zoo_watch import Watch

RESULTS = Path(__file__).parent / "results"
INTEGERS = ("dynamic", "int8", "int16x8")
Record = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is the same for all models. `stock_above`: parameters from which none are prepared."""

    folder: Path
    images: Path
    weights: str
    targets: tuple[Target, ...]
    sampling: Sampling
    bounds: process.Bounds
    stock_above: int
    redo: bool

    def conditions(self, model: Card) -> Record:
        """Return what a model's figures hold for."""
        tools = {name: version(name) for name in contract_builder.TOOLS}
        here = machine.identity()
        return {
            "machine": here | {"packages": here["packages"] | tools},
            "weights": self.weights,
            "calibrate": self.sampling.calibration,
            "check": self.sampling.check,
            "seed": self.sampling.seed,
            "prepare": model.parameters <= self.stock_above,
        }


def main() -> None:
    arguments = _arguments()
    plan = _plan(arguments)
    chosen = [card(name) for name in arguments.only or cards()]
    for model in sorted(chosen, key=_cost):
        _convert(model, plan)
        zoo_table.write(plan.folder, RESULTS / f"zoo-{machine.slug()}")


def _cost(model: Card) -> float:
    return model.parameters * model.size**2


def _convert(model: Card, plan: Plan) -> None:
    """Run what is missing of one model and write it beside what stands there."""
    path = plan.folder / f"{model.name}.json"
    known = {} if plan.redo or not path.exists() else json.loads(path.read_text())["cells"]
    missing = [target for target in plan.targets if str(target) not in known]
    if not missing:
        return
    print(f"{model.name}: {len(missing)} targets", file=sys.stderr, flush=True)
    cells = known | _cells(model, missing, plan)
    record = {"model": model.name, "parameters": model.parameters, "size": model.size}
    text = json.dumps(record | plan.conditions(model) | {"cells": cells}, indent=2)
    write_whole(path, f"{text}\n".encode())


def _cells(model: Card, targets: Sequence[Target], plan: Plan) -> Record:
    """Return each target's cell; `shared` is what all of them needed."""
    with tempfile.TemporaryDirectory(prefix="kedge-zoo-") as folder:
        job = _job(model, targets, plan, Path(folder))
        with Watch() as watch:
            outcomes = _outcomes(job, plan, watch)
    spent, idle = watch.parts(), {"seconds": 0.0, "peak_gb": 0.0}
    shared = {name: cost for name, cost in spent.items() if name not in map(str, targets)}
    return {
        str(outcome.target): _cell(outcome, plan)
        | spent.get(str(outcome.target), idle)
        | {"shared": shared}
        for outcome in outcomes
    }


def _job(model: Card, targets: Sequence[Target], plan: Plan, out: Path) -> Job:
    return Job(
        request=_request(model, plan, out),
        targets=tuple(targets),
        out=out,
        calibrate=plan.images,
        sampling=plan.sampling,
        effort=DEFAULT if model.parameters <= plan.stock_above else FAST,
        force_input=plan.weights == random_weights.NONE,
        # A thousand untrained classes lie near together: a change of the first says little.
        limits=UserLimits(agreement=0.0) if plan.weights == random_weights.NONE else UserLimits(),
    )


def _request(model: Card, plan: Plan, folder: Path) -> SourceRequest:
    """Return the request for a card; random weights are written to a file of its own first."""
    if plan.weights != random_weights.NONE:
        return SourceRequest(model.name, weights=plan.weights)
    path = random_weights.write(model.name, plan.images, plan.sampling, folder)
    return SourceRequest(str(path), card=model.name, head="logits")


def _outcomes(job: Job, plan: Plan, watch: Watch) -> list[Outcome]:
    """Convert; what concerns all targets is a reason of each."""
    try:
        return supervisor.convert(job, Progress(watch.show), plan.bounds)
    except KedgeError as error:
        return [failed(target, one_line(error, 400)) for target in job.targets]


def _cell(outcome: Outcome, plan: Plan) -> Record:
    """Return what a conversion's JSON tells of a target, without the file's path."""
    # The log's path is of a folder that is gone by now.
    reasons = [reason.partition("; log ")[0] for reason in outcome.verdict.reasons]
    notes = list(outcome.notes)
    # Untrained weights blow the noise of integers up: how far they are off is told, not judged.
    if (
        plan.weights == random_weights.NONE
        and outcome.target.precision in INTEGERS
        and outcome.checked
    ):
        reasons, notes = [], [*notes, *(f"not judged: {reason}" for reason in reasons)]
    cell: Record = {"passed": not reasons, "reasons": reasons, "notes": notes}
    if (checked := outcome.checked) is None:
        return cell
    figures = {"bytes": checked.size, "ratio": checked.ratio, "method": checked.recipe.method}
    return cell | figures | {"parity": asdict(checked.parity)}


def _plan(arguments: argparse.Namespace) -> Plan:
    folder = RESULTS / "zoo" / machine.slug()
    folder.mkdir(parents=True, exist_ok=True)
    return Plan(
        folder=folder,
        images=arguments.images,
        weights=arguments.weights,
        targets=parse_targets(arguments.targets),
        sampling=Sampling(arguments.calibrate, arguments.check),
        bounds=process.Bounds(
            process.read_memory(arguments.memory_limit), process.read_time(arguments.time_limit)
        ),
        stock_above=arguments.no_prepare_above,
        redo=arguments.redo,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--weights", default=SourceRequest.weights)
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="default: all")
    parser.add_argument("--targets", default="all", help=f"all, or {','.join(map(str, TARGETS))}")
    parser.add_argument("--calibrate", type=int, default=Sampling.calibration)
    parser.add_argument("--check", type=int, default=Sampling.check)
    parser.add_argument("--no-prepare-above", type=int, default=sys.maxsize, metavar="PARAMETERS")
    parser.add_argument("--memory-limit", default=process.MEMORY)
    parser.add_argument("--time-limit", default=process.TIME)
    parser.add_argument("--redo", action="store_true", help="run what stands there again")
    return parser.parse_args()


if __name__ == "__main__":
    main()
