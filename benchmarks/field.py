"""Does a device notice that the world has changed, and does it stay quiet when it hasn't?

Holds streams against the sketch of 300 photos of a folder (those that `kedge convert` calibrates
and validates with); the streams show the others, to which nothing was fitted. In steps, as each
takes minutes; `measure` resumes, and several may run at once:

    python benchmarks/field.py measure --artefact FILE --work FOLDER --images DIR
    python benchmarks/field.py fresh   --artefact FILE --work FOLDER    (the demo only)
    python benchmarks/field.py faults  --artefact FILE --work FOLDER
    python benchmarks/field.py quiet   --artefact FILE --work FOLDER
    python benchmarks/field.py page    --artefact FILE --work FOLDER

`fresh` renders images of the demo, each shown once: a stream that is exchangeable with its
calibration, as the bound of false alarms assumes. Photos are drawn again and again instead, which
is harder: a few hundred are no population, and a long stream proves how they differ from others.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import machine
from field_data import Table, measured, rendered
from field_faults import FAULTS
from field_page import SEEDS, Outcome, text
from field_simulated import simulated
from kedge_runtime.arrays import Indices
from kedge_runtime.field.accuracy import estimate
from kedge_runtime.field.evidence import ERROR, FieldTests, MeasuredFrame
from kedge_runtime.field.measure import NAMES, measure
from kedge_runtime.field.sketch import Seen, Sketch, sketch_of

RESULTS = Path(__file__).parent / "results"
CALIBRATION = 300
WITHIN, STREAM, SPLITS = 300, 100_000, 3
COST = 0.05  # the accuracy that a fault of the benchmark costs at least
NEW, SHARES = "new classes", (0.1, 0.2, 0.4)


Draw = Callable[[np.random.Generator], int]


def drawn(*sets: tuple[float, Indices]) -> Draw:
    """Return a draw of rows: from each set with its share."""
    shares = [share for share, _ in sets]

    def draw(rng: np.random.Generator) -> int:
        rows = sets[rng.choice(len(sets), p=shares)][1] if len(sets) > 1 else sets[0][1]
        return int(rows[rng.integers(len(rows))])

    return draw


@dataclass(frozen=True)
class Case:
    """A fault at a strength: its stream, the clean stream before it, and what it costs."""

    table: Table
    sketch: Sketch
    clean: Draw
    faulty: Draw
    accuracy: float
    before: float


def case_of(table: Table, split: "Split", name: str, strength: float, report: bool) -> Case:
    """Return a case on the images to report, or on those to choose strengths with."""
    images = split.stream if report else split.calibration
    if name == NEW:
        return _new_classes(table, split, images, strength)
    clean, faulty = table.rows(images), table.rows(images, name, strength)
    return Case(
        table,
        table.sketch(split.calibration),
        drawn((1.0, clean)),
        drawn((1.0, faulty)),
        table.accuracy(faulty),
        table.accuracy(clean),
    )


def _new_classes(table: Table, split: "Split", images: Indices, share: float) -> Case:
    """Return a case of a model without a fifth of its classes, which begin to come."""
    rng = np.random.default_rng(1)
    unknown = rng.permutation(table.outputs.shape[1])[: table.outputs.shape[1] // 5]
    poorer = table.without(unknown)
    rows = poorer.rows(images)
    new = np.isin(table.true[rows], unknown)
    known, strange = rows[~new], rows[new]
    calibration = split.calibration[~np.isin(_true(table, split.calibration), unknown)]
    before = poorer.accuracy(known)
    return Case(
        poorer,
        poorer.sketch(calibration),
        drawn((1.0, known)),
        drawn((1 - share, known), (share, strange)),
        before * (1 - share),
        before,
    )


def _true(table: Table, images: Indices) -> Indices:
    """Return the true class of each image."""
    rows = table.rows(images)
    known = dict(zip(table.image[rows].tolist(), table.true[rows].tolist(), strict=True))
    return np.array([known[image] for image in images.tolist()])


@dataclass(frozen=True)
class Split:
    """Images of the sketch, and those of the streams."""

    calibration: Indices
    stream: Indices

    @classmethod
    def drawn(cls, images: Indices, seed: int) -> "Split":
        """Draw CALIBRATION images for the sketch. Seed 0 draws as `kedge convert` does."""
        order = np.random.default_rng(seed).permutation(int(images.max()) + 1)
        order = order[np.isin(order, images)]
        return cls(order[:CALIBRATION], order[CALIBRATION:])


def run(case: Case, onset: int, seed: int) -> tuple[int | None, str, FieldTests]:
    """Return after how many faulty frames the first alarm came, None for never or too early."""
    rng, evidence = np.random.default_rng((seed, onset)), FieldTests(case.sketch, seed)
    for at in range(onset + WITHIN):
        draw = case.clean if at < onset else case.faulty
        alarms = [
            turn for turn in evidence.add(case.table.frame(draw(rng))) if turn.kind == "alarm"
        ]
        if alarms:
            found = at - onset + 1 if at >= onset else None
            return found, NAMES[alarms[0].test] + ("" if found else ", too early"), evidence
    return None, "missed", evidence


def outcome(case: Case, name: str, strength: float, onset: int) -> Outcome:
    """Run a case SEEDS times; estimate the accuracy on as many frames as there are to find it."""
    runs = [run(case, onset, seed) for seed in range(SEEDS)]
    estimates = []
    for seed in range(SEEDS):
        rng = np.random.default_rng((seed, 7))
        rows = [case.faulty(rng) for _ in range(WITHIN)]
        guess = estimate(case.sketch, case.table.answers[0][rows])
        assert guess is not None
        assert guess.field is not None
        estimates.append(guess.field)
    estimated = float(np.mean(estimates))
    return Outcome(
        name,
        strength,
        round(case.accuracy, 3),
        round(case.before - case.accuracy, 3),
        onset,
        [frames for frames, _, _ in runs],
        sorted({named for _, named, _ in runs}),
        round(estimated, 3),
        round(estimated - case.accuracy, 3),
    )


def ladder(name: str) -> tuple[float, ...]:
    """Return the strengths of a fault."""
    return SHARES if name == NEW else FAULTS[name].strengths


def weakest(table: Table, split: Split, name: str) -> float:
    """Return the weakest strength that costs COST on the images of the sketch, or the strongest."""
    for strength in ladder(name):
        case = case_of(table, split, name, strength, report=False)
        if case.before - case.accuracy >= COST:
            return strength
    return ladder(name)[-1]


def faults(table: Table, later: int) -> list[Outcome]:
    """Run every fault at each strength that costs enough, at once and `later`."""
    split, outcomes = Split.drawn(np.unique(table.image), 0), []
    for name in (*FAULTS, NEW):
        weak = ladder(name).index(weakest(table, split, name))
        for strength in ladder(name)[weak:]:
            case = case_of(table, split, name, strength, report=True)
            outcomes += [outcome(case, name, strength, onset) for onset in (0, later)]
    return outcomes


def quiet(table: Table, splits: int, frames: int) -> dict[str, Any]:
    """Return how many alarms clean streams raise: other photos for sketch and stream each time."""
    alarms, notices, images = [], 0, np.unique(table.image)
    for seed in range(splits):
        split = Split.drawn(images, 100 + seed)
        evidence, rng = (
            FieldTests(table.sketch(split.calibration), seed),
            np.random.default_rng(seed),
        )
        draw = drawn((1.0, table.rows(split.stream)))
        for _ in range(frames):
            for turn in evidence.add(table.frame(draw(rng))):
                alarms += [NAMES[turn.test]] if turn.kind == "alarm" else []
                notices += turn.kind == "mix"
    return {"streams": splits, "frames": frames, "alarms": alarms, "notices": notices}


def fresh(table: Table, frames: int) -> dict[str, Any]:
    """Return how many alarms a stream raises in which no image comes twice."""
    order = np.arange(len(table.image))
    values, predicted, right = table.answers
    first = order[:CALIBRATION]
    sketch = sketch_of(Seen(values[first], predicted[first], right[first]), table.outputs.shape[1])
    evidence, alarms, notices = FieldTests(sketch), [], 0
    shown = order[CALIBRATION : CALIBRATION + frames]
    for row in shown.tolist():
        for turn in evidence.add(table.frame(row)):
            alarms += [NAMES[turn.test]] if turn.kind == "alarm" else []
            notices += turn.kind == "mix"
    return {"streams": 1, "frames": len(shown), "alarms": alarms, "notices": notices}


def mixed(table: Table) -> dict[str, Any]:
    """Return what streams raise in which one class makes 40 %: a notice and no alarm is right."""
    split = Split.drawn(np.unique(table.image), 0)
    clean, counts = table.rows(split.stream), dict[str, list[int | None]]()
    sketch, alarms = table.sketch(split.calibration), 0
    for output in range(table.outputs.shape[1]):
        often = clean[table.true[clean] == output]
        draw, first = drawn((0.4, often), (0.6, clean)), None
        evidence, rng = FieldTests(sketch, output), np.random.default_rng(output)
        for at in range(1000):
            for turn in evidence.add(table.frame(draw(rng))):
                alarms += turn.kind == "alarm"
                if turn.kind == "mix" and turn.test == output and first is None:
                    first = at + 1
        counts[str(output)] = [first]
    return {"notices after": [first for (first,) in counts.values()], "alarms": alarms}


def cost(outputs: int) -> dict[str, float]:
    """Return the milliseconds of a frame of 224x224: the median and the 90th percentile."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 224, 224, 3)).astype(np.uint8)
    rows = np.stack([measure(image, (0.5, 0.2, 0.1)) for image in images] * 6)
    evidence = FieldTests(sketch_of(Seen(rows, rng.integers(0, outputs, 300)), outputs))
    taken = []
    for at in range(1000):
        best, began = int(rng.integers(outputs)), time.perf_counter()
        evidence.add(MeasuredFrame(measure(images[at % 50], (0.5, 0.2, 0.1)), best, (best,), 0.0))
        taken.append(1000 * (time.perf_counter() - began))
    low, median, high = np.quantile(taken, (0.1, 0.5, 0.9))
    return {"p10": round(low, 3), "median": round(median, 3), "p90": round(high, 3)}


def judge_faults(arguments: argparse.Namespace) -> None:
    """Judge the faults and the cost of a frame."""
    table = Table.read(sorted(arguments.work.glob("part-*.npz")))
    _keep(arguments, "faults", {
        "images": len(np.unique(table.image)),
        "cost": cost(table.outputs.shape[1]),
        "faults": [asdict(each) for each in faults(table, arguments.onset)],
        "mix": mixed(table) if table.outputs.shape[1] <= 20 else None,
    })  # fmt: skip


def judge_quiet(arguments: argparse.Namespace) -> None:
    """Judge the streams without a fault."""
    table = Table.read(sorted(arguments.work.glob("part-*.npz")))
    once = sorted(arguments.work.glob("fresh-*.npz"))
    _keep(arguments, "quiet", {
        "simulated": simulated(),
        "quiet": quiet(table, SPLITS, arguments.frames),
        "fresh": fresh(Table.read(once), STREAM) if once else None,
    })  # fmt: skip


def _keep(arguments: argparse.Namespace, name: str, figures: dict[str, Any]) -> None:
    (arguments.work / f"{name}.json").write_text(json.dumps(figures))


def page(arguments: argparse.Namespace) -> int:
    """Write the results; return 1 where a limit is missed."""
    figures = {"machine": machine.identity(), "artefact": arguments.artefact.name, "error": ERROR}
    for name in ("faults", "quiet"):
        figures |= json.loads((arguments.work / f"{name}.json").read_text())
    found = [Outcome(**each) for each in figures["faults"]]
    name = f"field-{arguments.artefact.name.split('.')[0]}-{machine.slug()}"
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(text(figures, found))
    print(text(figures, found))
    return int(not held(figures, found))


def held(report: dict[str, Any], found: list[Outcome]) -> bool:
    """Whether the limits of issue 19 hold."""
    late = [each for each in found if each.lost >= COST and each.found < 9]
    near = [each for each in found if each.onset == 0 and abs(each.error) <= 0.04]
    frames = report["quiet"]["streams"] * report["quiet"]["frames"]
    silent = len(report["quiet"]["alarms"]) * STREAM <= frames
    return not late and len(near) >= 0.8 * len(found) / 2 and silent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--artefact", type=Path, required=True, help="a sealed classifier")
    parser.add_argument("--images", type=Path, help="a folder with ground truth, for measure")
    parser.add_argument("--work", type=Path, required=True, help="where measurements are kept")
    parser.add_argument("--seconds", type=float, default=280.0, help="of measure and of fresh")
    parser.add_argument("--frames", type=int, default=STREAM, help="of a clean stream")
    parser.add_argument("--onset", type=int, default=1000, help="clean frames before a fault")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    return int(STEPS[arguments.step](arguments) or 0)


STEPS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "measure": measured,
    "fresh": rendered,
    "faults": judge_faults,
    "quiet": judge_quiet,
    "page": page,
}

if __name__ == "__main__":
    sys.exit(main())
