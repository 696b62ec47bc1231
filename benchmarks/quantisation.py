"""What does int8 cost a classifier, by the way it is made?

Converts one Keras model in every way of `quantisation_ways.py`, each in a process of its own, and
holds the results against the float original on all images of the folder that calibrated none of
them. Needs keras-kedge[convert]; the interpreter of --peer-python has the other projects' tools,
and the row of one that it lacks says so.

    python benchmarks/quantisation.py --model FILE.keras --card MobileNetV2 --images DIR --seeds 0 1

Every seed draws other calibration images. Labels come from names, folders or a CSV (see
`kedge_runtime/truth.py`); without them the table has agreement only.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import machine
import paired
import quantisation_ways as ways
from kedge_convert import parity
from kedge_convert.images import collect
from kedge_convert.load.request import SourceRequest
from kedge_convert.quantise.budget import Budget
from kedge_convert.sampling import Sampling
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.drift.statistics import sqnr, top_k_agreement
from kedge_runtime.drift.truth import Truth, read_truth
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.image.decode import SUFFIXES
from kedge_runtime.image.input_options import InputOptions

RESULTS = Path(__file__).parent / "results"
ROUNDS = 60  # timed runs of every model
FLOAT = "float Keras"


@dataclass(frozen=True)
class Figures:
    """One row of one seed. `bytes` without the seal; `latency` as a ratio to the format's stock.

    `top1_drop` (float's top-1 less this one's) and `agreement_gain` (over the format's stock) are
    shares of images, each with its 95 % interval.
    """

    way: str
    form: str = ""
    top1: float | None = None
    agreement: float | None = None
    kl: float | None = None
    sqnr: float | None = None
    bytes: int | None = None
    seal_bytes: int | None = None
    size_ratio: float | None = None
    latency: float | None = None
    seconds: float | None = None
    top1_drop: list[float] | None = None
    agreement_gain: list[float] | None = None
    same_ops: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Answered:
    """A model, its logits on the check images, its operators and its median seconds a run."""

    made: ways.Made
    logits: NDArray[np.float32]
    operators: Counter[str]
    seconds: float

    @property
    def name(self) -> tuple[str, str]:
        """The row that it belongs to."""
        return self.made.way, self.made.form


@dataclass
class Pairs:
    """By row: differences to the float model's top-1 and to stock's agreement, by image."""

    drop: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    gain: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    images: list[Path] = field(default_factory=list)


def main() -> None:
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)  # before the work whose results it takes
    everything = Pairs()
    seeds = {seed: _seed(arguments, seed, everything) for seed in arguments.seeds}
    report = {
        "machine": machine.identity(),
        "model": arguments.model.name,
        "calibration_images": arguments.calibrate,
        "check_images": len(everything.images) // len(seeds),
        "mean": [asdict(row) for row in _means(list(seeds.values()), everything)],
        "seeds": {seed: [asdict(row) for row in rows] for seed, rows in seeds.items()},
    }
    name = f"quantisation-{arguments.model.stem}-{machine.slug()}"
    (arguments.out / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    text = _markdown(report)
    (arguments.out / f"{name}.md").write_text(text)
    print(text)


def _seed(arguments: argparse.Namespace, seed: int, everything: Pairs) -> list[Figures]:
    """Convert in every way with one draw of calibration images."""
    job = _job(arguments, seed)
    original = ways.original(job)
    truth = read_truth(job.photos.validation, original.facts.labels, arguments.labels_csv)
    made = []
    for way in arguments.ways or ways.WAYS:
        start = time.perf_counter()
        made += ways.convert(way, job)
        _say(f"seed {seed}: {way}, {time.perf_counter() - start:.0f} s; {made[-1].note}")
    answered = _answer(
        [each for each in made if each.content], original.facts, job.photos.validation
    )
    pairs = _pairs(answered, original, job.photos.validation, truth)
    _append(everything, pairs)
    return _rows(original, made, answered, pairs, truth)


def _job(arguments: argparse.Namespace, seed: int) -> ways.Job:
    count = sum(path.suffix.lower() in SUFFIXES for path in arguments.images.rglob("*"))
    # `collect` takes no more than there are, and leaves some to measure on.
    sampling = Sampling(arguments.calibrate, arguments.check or count, seed)
    request = SourceRequest(
        str(arguments.model),
        card=arguments.card,
        labels=arguments.labels,
        pixels=InputOptions(normalisation=arguments.normalisation),
    )
    budget = Budget(min_agreement=arguments.min_agreement)
    photos = collect(arguments.images, sampling)
    return ways.Job(request, photos, seed, budget, arguments.peer_python)


def _answer(
    made: Sequence[ways.Made], facts: ways.Facts, photos: Sequence[Path]
) -> dict[tuple[str, str], Answered]:
    """Run every model on the images, then all of them in turns against the clock."""
    with tempfile.TemporaryDirectory() as folder:
        opened = {}
        for i, each in enumerate(made):
            (place := Path(folder) / str(i)).mkdir()
            opened[each] = ways.classifier(facts, each, place, EngineOptions(threads=1))
        logits = {
            each: np.stack([one.outputs(photo) for photo in photos]) for each, one in opened.items()
        }
        seconds = clock(opened, photos[0])
    answered = [Answered(each, logits[each], _operators(each), seconds[each]) for each in opened]
    return {one.name: one for one in answered}


def clock(opened: dict[ways.Made, Classifier], photo: Path) -> dict[ways.Made, float]:
    """Return each model's median seconds per run: in turns, so that a disturbance meets all."""
    times: dict[ways.Made, list[float]] = {each: [] for each in opened}
    runs = {
        each: (one.engine.run, one.preprocessor.tensor(one.read(photo)))
        for each, one in opened.items()
    }
    for _ in range(ROUNDS):
        for each, (run, tensor) in runs.items():
            run(tensor)  # untimed: the caches are another model's
            start = time.perf_counter()
            run(tensor)
            times[each].append(time.perf_counter() - start)
    return {each: statistics.median(found) for each, found in times.items()}


def _operators(made: ways.Made) -> Counter[str]:
    return OPERATORS[made.form](made.content)


def _tflite_operators(content: bytes) -> Counter[str]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Without delegates: XNNPACK adds itself to the list.
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=plain)
    return Counter(operator["op_name"] for operator in interpreter._get_ops_details())


def _onnx_operators(content: bytes) -> Counter[str]:
    import onnx

    return Counter(node.op_type for node in onnx.load_from_string(content).graph.node)


OPERATORS = {"tflite": _tflite_operators, "onnx": _onnx_operators}


def _stock(answered: dict[tuple[str, str], Answered], form: str) -> Answered:
    """Return the model that the others of a format are held against."""
    return next(one for one in answered.values() if one.made.form == form)


def _pairs(
    answered: dict[tuple[str, str], Answered],
    original: ways.Original,
    photos: Sequence[Path],
    truth: Truth | None,
) -> Pairs:
    best = original.logits.argmax(axis=1)
    pairs = Pairs(images=list(photos))
    for name, one in answered.items():
        found, stock = (each.logits.argmax(axis=1) for each in (one, _stock(answered, name[1])))
        pairs.gain[name] = list((found == best) * 1.0 - (stock == best))
        if truth:
            right = np.array([truth[photo] for photo in photos])
            pairs.drop[name] = list((best == right) * 1.0 - (found == right))
    return pairs


def _append(everything: Pairs, pairs: Pairs) -> None:
    everything.images += pairs.images
    for name in ("drop", "gain"):
        for row, differences in getattr(pairs, name).items():
            getattr(everything, name).setdefault(row, []).extend(differences)


def _rows(
    original: ways.Original,
    made: Sequence[ways.Made],
    answered: dict[tuple[str, str], Answered],
    pairs: Pairs,
    truth: Truth | None,
) -> list[Figures]:
    right = np.array([truth[photo] for photo in pairs.images]) if truth else None
    top1 = _share(original.logits, right)
    rows = [Figures(FLOAT, top1=top1, agreement=1.0, bytes=4 * original.facts.parameters)]
    for each in made:
        one = answered.get((each.way, each.form))
        if one is None:
            rows.append(Figures(each.way, note=each.note))
            continue
        rows.append(_figures(one, _stock(answered, each.form), original, pairs, right))
    return rows


def _figures(
    one: Answered,
    stock: Answered,
    original: ways.Original,
    pairs: Pairs,
    right: NDArray[np.intp] | None,
) -> Figures:
    made, reference = one.made, original.logits
    return Figures(
        way=made.way,
        form=made.form,
        top1=_share(one.logits, right),
        agreement=top_k_agreement(reference, one.logits, 1),
        kl=parity.divergence(reference, one.logits, original.facts.output),
        sqnr=sqnr(reference, one.logits),
        bytes=len(made.content),
        seal_bytes=made.seal or None,
        size_ratio=len(made.content) / len(stock.made.content),
        latency=one.seconds / stock.seconds,
        seconds=made.seconds,
        top1_drop=_interval(pairs.drop.get(one.name), pairs.images),
        agreement_gain=_interval(pairs.gain[one.name], pairs.images),
        same_ops=one.operators == stock.operators,
        note=made.note,
    )


def _share(logits: NDArray[np.float32], right: NDArray[np.intp] | None) -> float | None:
    return None if right is None else float((logits.argmax(axis=1) == right).mean())


def _interval(differences: list[float] | None, images: Sequence[Path]) -> list[float] | None:
    """Return [mean, low, high]."""
    if differences is None:
        return None
    values = np.array(differences)
    return [float(values.mean()), *paired.interval(values, images)]


def _means(seeds: list[list[Figures]], everything: Pairs) -> list[Figures]:
    """Return each row's mean over the seeds; the intervals are over all images of all seeds."""
    names = [(row.way, row.form) for row in seeds[0]]
    return [
        _mean([row for rows in seeds for row in rows if (row.way, row.form) == name], everything)
        for name in names
    ]


def _mean(rows: list[Figures], everything: Pairs) -> Figures:
    first = asdict(rows[0])
    name = (rows[0].way, rows[0].form)
    means = {
        key: statistics.fmean(getattr(row, key) for row in rows)
        for key, value in first.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    intervals = {
        "top1_drop": _interval(everything.drop.get(name), everything.images),
        "agreement_gain": _interval(everything.gain.get(name), everything.images),
    }
    same = None if rows[0].same_ops is None else all(row.same_ops for row in rows)
    note = " / ".join(dict.fromkeys(row.note for row in rows if row.note))
    return Figures(**first | means | intervals | {"same_ops": same, "note": note})


COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "way": lambda row: " ".join(filter(None, (row["way"], row["form"]))),
    "top-1": lambda row: _number(row["top1"], ".3f"),
    "drop, points": lambda row: _points(row["top1_drop"]),
    "agreement": lambda row: _number(row["agreement"], ".3f"),
    "gain, points": lambda row: _points(row["agreement_gain"]),
    "KL": lambda row: _number(row["kl"], ".4f"),
    "SQNR dB": lambda row: _number(row["sqnr"], ".1f"),
    "MB": lambda row: _number(row["bytes"] and row["bytes"] / 1e6, ".3f"),
    "size": lambda row: _number(row["size_ratio"], ".3f"),
    "seal KB": lambda row: _number(row["seal_bytes"] and row["seal_bytes"] / 1e3, ".0f"),
    "latency": lambda row: _number(row["latency"], ".3f"),
    "s": lambda row: _number(row["seconds"], ".0f"),
    "ops": lambda row: {None: "", True: "same", False: "other"}[row["same_ops"]],
    "note": lambda row: row["note"],
}


def _markdown(report: dict[str, Any]) -> str:
    host = report["machine"]
    lines = [
        f"# int8 of {report['model']}",
        "",
        f"{host['processor']}, {host['cores']} cores. {report['calibration_images']} images to "
        f"calibrate with, {report['check_images']} others to measure on. Drop is the float "
        "model's top-1 less the row's, gain the row's agreement with the float model less that of "
        "the stock file of the same format; with paired 95 % intervals. Size, latency (one thread, "
        "medians, in turns) and operators are held against the same stock file.",
    ]
    tables = {f"Mean of seeds {', '.join(map(str, report['seeds']))}": report["mean"]}
    tables |= {f"Seed {seed}": rows for seed, rows in report["seeds"].items()}
    # One seed is its own mean.
    for title, rows in list(tables.items())[len(report["seeds"]) == 1 :]:
        lines += ["", f"## {title}", "", *_table(rows)]
    return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    return [
        f"| {' | '.join(COLUMNS)} |",
        f"|{' --- |' * len(COLUMNS)}",
        *(f"| {' | '.join(cell(row) for cell in COLUMNS.values())} |" for row in rows),
    ]


def _number(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)


def _points(value: list[float] | None) -> str:
    return "" if value is None else "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * v for v in value))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--calibrate", type=int, default=Sampling.calibration)
    parser.add_argument("--check", type=int, help="images to measure on; default: all others")
    parser.add_argument("--min-agreement", type=float, default=0.98, help="of the budget's row")
    parser.add_argument("--card")
    parser.add_argument("--normalisation")
    parser.add_argument("--labels")
    parser.add_argument("--labels-csv", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[Sampling.seed])
    parser.add_argument("--ways", nargs="+", choices=ways.WAYS, help="default: all")
    parser.add_argument("--peer-python", default=sys.executable, help="has the peers' tools")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
