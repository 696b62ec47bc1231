"""The league: models x ways x splits, each file held against the float model, image by image.

Needs keras-kedge[convert], the nets of `league_nets.py`, the shared models and photos, and for the
other projects' tools an interpreter that has them (litert-quantizer, nncf, onnxsim):

    python benchmarks/league_nets.py --out NETS
    python benchmarks/league.py --nets NETS --shared DATA --out DIR --peer-python PYTHON

A split draws 200 calibration images, 100 validation images and, of the rest, the images that all
figures are from. kedge runs as its users run it, as a command; the minutes of its rows are those of
the whole command, for both formats. DIR gets the files and cells.jsonl, a line for each model, way,
split and format; what is there is not made again, so that a run that was stopped goes on. A way
that can't run here leaves a line that says why, and is tried again. Then come the latencies, with
--latency (on a machine that does nothing else), and the table (`league_table.py`).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import league_kedge
import league_table
import quantisation
import quantisation_ways as ways
from kedge_convert.images import ImageSplit, collect, tensors
from kedge_convert.load.request import SourceRequest
from kedge_convert.parity import divergence
from kedge_convert.quantise.budget import Budget
from kedge_convert.sampling import Sampling
from kedge_runtime.drift.statistics import sqnr
from kedge_runtime.drift.truth import Truth, read_truth
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.image.folder import find_images
from kedge_runtime.image.input_options import InputOptions
from league_kedge import Converted

CALIBRATION, VALIDATION, TEST = 200, 100, 300
LITE = "scale=1/128 mean=.9921875"  # (x - 127) / 128
NET = InputOptions("load_img", "tf")


@dataclass(frozen=True)
class Entry:
    """A model of the league. `file`: in the folder of the nets, or in the shared data."""

    file: str
    card: str | None = None
    pixels: InputOptions = InputOptions()
    labels: str | None = None
    shared: bool = False

    def path(self, arguments: argparse.Namespace) -> Path:
        """Return the model's file or folder."""
        return Path(arguments.shared / "models" if self.shared else arguments.nets) / self.file

    def images(self, arguments: argparse.Namespace) -> Path:
        """Return the folder of the model's images."""
        return Path(arguments.shared if self.shared else arguments.nets) / "images"

    def request(self, arguments: argparse.Namespace) -> SourceRequest:
        """Return the request of the model."""
        labels = None if self.card else self.labels or str(arguments.nets / "labels.txt")
        path = str(self.path(arguments))
        return SourceRequest(path, card=self.card, pixels=self.pixels, labels=labels)


MODELS = {
    "MobileNet 0.25": Entry("mobilenet_0.25_224.keras", "MobileNet", shared=True),
    "MobileNetV2": Entry("mobilenet_v2_1.0_224.keras", "MobileNetV2", shared=True),
    "EfficientNet-Lite0": Entry(
        "efficientnet_lite0_224.keras", None, InputOptions("imagenet", LITE), "imagenet", True
    ),
    "LeakyReLU": Entry("leaky-relu.keras", pixels=NET),
    "LeakyReLU, plain": Entry("leaky-plain.keras", pixels=NET),
    "SiLU, SE": Entry("silu-se.keras", pixels=NET),
    "grouped": Entry("grouped.keras", pixels=NET),
    "transposed": Entry("transposed.keras", pixels=NET),
    "shared layers": Entry("shared.keras", pixels=NET),
    "SiLU, SE (SavedModel)": Entry("silu-se-saved-model", pixels=NET),
    "LeakyReLU (TF-Hub)": Entry("leaky-relu-hub", pixels=NET),
}

PEERS = tuple(way for way in ways.WAYS if not way.startswith("kedge"))
WAYS = (*PEERS, *league_kedge.WAYS)


@dataclass(frozen=True)
class Cell:
    """A line of cells.jsonl. Without a file only names and `note`.

    By image of the split's test images: `kl` in nats, `agree` with the float model's best class,
    `right` (with ground truth; `float_right`: the float model). `bytes`: without the seal.
    `passed`: whether `kedge convert` passed.
    """

    model: str
    way: str
    split: int
    format: str = ""
    images: tuple[str, ...] = ()
    kl: tuple[float, ...] = ()
    agree: tuple[int, ...] = ()
    right: tuple[int, ...] = ()
    float_right: tuple[int, ...] = ()
    sqnr: float = 0.0
    bytes: int = 0
    seconds: float = 0.0
    passed: bool | None = None
    precision: str = "int8"
    note: str = ""


@dataclass(frozen=True)
class Subject:
    """A model under test: how it is asked for, and what the float model says of all its images."""

    name: str
    entry: Entry
    request: SourceRequest
    images: Path
    original: ways.Original
    rows: dict[Path, int]
    truth: Truth | None

    def logits(self, images: Sequence[Path]) -> NDArray[np.float32]:
        """Return the float model's logits, [images, classes]."""
        return self.original.logits[[self.rows[image] for image in images]]


@dataclass(frozen=True)
class Split:
    """A draw: what converts, and the test images that measure."""

    number: int
    photos: ImageSplit
    test: tuple[Path, ...]


def main() -> None:
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = arguments.out / "cells.jsonl"
    for model in arguments.models:
        todo = [
            (split, way)
            for split in arguments.splits
            for way in arguments.ways
            if not _done(lines, model, way, split)
        ]
        if todo:
            _run(model, todo, arguments, lines)
    if arguments.latency:
        _latency(arguments, lines)
    print(league_table.write(lines))


def _done(lines: Path, model: str, way: str, split: int) -> bool:
    cells = league_table.read(lines)
    return any(key[:2] == (model, way) and key[3] == split and cell["kl"] for key, cell in cells)


def _run(
    model: str, todo: list[tuple[int, str]], arguments: argparse.Namespace, lines: Path
) -> None:
    try:
        subject = _subject(model, arguments)
    # Whatever a toolkit raises: the next model may run.
    except Exception as error:
        _say(f"{model}: no float model: {type(error).__name__}: {error}")
        return
    for number, way in todo:
        split = _split(subject.images, number)
        for cell in _cells(subject, split, way, arguments):
            with lines.open("a") as file:
                file.write(json.dumps(asdict(cell)) + "\n")
            _say(
                f"{model}, {way} {cell.format}, split {number}: "
                f"KL {np.mean(cell.kl or [np.nan]):.4f}, agreement "
                f"{np.mean(cell.agree or [np.nan]):.3f}, {cell.seconds:.0f} s {cell.note}"
            )


def _subject(name: str, arguments: argparse.Namespace) -> Subject:
    entry = MODELS[name]
    folder, request = entry.images(arguments), entry.request(arguments)
    paths = tuple(find_images(folder, "--shared"))
    original = ways.original(ways.Job(request, ImageSplit((), paths), 0, Budget()))
    truth = read_truth(paths, original.facts.labels, None)
    rows = {path: i for i, path in enumerate(paths)}
    return Subject(name, entry, request, folder, original, rows, truth)


@cache
def _split(images: Path, number: int) -> Split:
    photos = collect(images, Sampling(CALIBRATION, VALIDATION, number))
    more = photos.enlarged(TEST).validation[len(photos.validation) :]
    return Split(number, photos, more)


def _cells(
    subject: Subject, split: Split, way: str, arguments: argparse.Namespace
) -> Iterator[Cell]:
    """Make a way's files, keep them, and measure them."""
    folder = arguments.out / "files" / subject.name / str(split.number)
    folder.mkdir(parents=True, exist_ok=True)
    for each in _converted(subject, split, way, arguments):
        made = each.made
        cell = Cell(subject.name, way, split.number, made.form, note=made.note)
        if not made.content:
            yield cell
            continue
        (folder / f"{way}.{made.form}").write_bytes(made.content)
        verdict = {"passed": each.passed, "precision": each.precision}
        known = asdict(cell) | verdict | {"seconds": made.seconds}
        yield Cell(**known | _figures(subject, split, made))


def _converted(
    subject: Subject, split: Split, way: str, arguments: argparse.Namespace
) -> Iterator[Converted]:
    if way in league_kedge.WAYS:
        sampling = Sampling(CALIBRATION, VALIDATION, split.number, confidence=0)
        yield from league_kedge.convert(way, subject.request, subject.images, sampling)
        return
    job = ways.Job(subject.request, split.photos, split.number, Budget(), arguments.peer_python)
    yield from map(Converted, ways.convert(way, job))


def _figures(subject: Subject, split: Split, made: ways.Made) -> dict[str, object]:
    facts, reference = subject.original.facts, subject.logits(split.test)
    answers = _answers(facts, made, split.test)
    pairs = zip(reference, answers, strict=True)
    best, found = reference.argmax(axis=1), answers.argmax(axis=1)
    figures: dict[str, object] = {
        "images": tuple(path.name for path in split.test),
        "kl": tuple(round(divergence(a[None], b[None], facts.output), 7) for a, b in pairs),
        "agree": tuple((best == found).astype(int).tolist()),
        "sqnr": sqnr(reference, answers),
        "bytes": len(made.content),
    }
    if subject.truth is not None:
        right = np.array([subject.truth[path] for path in split.test])
        figures["right"] = tuple((found == right).astype(int).tolist())
        figures["float_right"] = tuple((best == right).astype(int).tolist())
    return figures


def _answers(facts: ways.Facts, made: ways.Made, images: Sequence[Path]) -> NDArray[np.float32]:
    with tempfile.TemporaryDirectory() as folder:
        opened = ways.classifier(facts, made, Path(folder), EngineOptions())
        inputs = tensors(images, opened.contract.input)
        return np.stack([opened.numbers(opened.engine.run(each)) for each in inputs])


def _latency(arguments: argparse.Namespace, lines: Path) -> None:
    """Time the first split's files of each model in turns; write seconds to latency.json."""
    found: dict[str, dict[str, float]] = {}
    for model in arguments.models:
        subject = _subject(model, arguments)
        split = _split(subject.images, arguments.splits[0])
        paths = sorted((arguments.out / "files" / model / str(split.number)).glob("*.*"))
        with tempfile.TemporaryDirectory() as folder:
            opened = {}
            for i, path in enumerate(paths):
                (place := Path(folder) / str(i)).mkdir()
                made = ways.Made(path.stem, path.suffix[1:], path.read_bytes())
                options = EngineOptions(threads=1)
                opened[made] = ways.classifier(subject.original.facts, made, place, options)
            times = quantisation.clock(opened, split.test[0])
        found[model] = {f"{made.way} {made.form}": each for made, each in times.items()}
    (lines.parent / "latency.json").write_text(json.dumps(found, indent=2) + "\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--nets", type=Path, required=True, help="of league_nets.py")
    parser.add_argument("--shared", type=Path, required=True, help="has models/ and images/")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--peer-python", default=sys.executable, help="has the peers' tools")
    parser.add_argument("--latency", action="store_true", help="time all files, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
