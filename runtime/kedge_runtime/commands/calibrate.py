"""Fit an artefact's confidence to labelled images: the command `kedge calibrate`."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge_runtime.arrays import Floats, Pixels
from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import artefact_of
from kedge_runtime.artefact.reseal import is_signed, resealed, write_resealed
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import probabilities
from kedge_runtime.commands.arguments import SHARE, say_unread
from kedge_runtime.commands.options import as_json, isolated_engine_options
from kedge_runtime.commands.paths import FILE, PLACE
from kedge_runtime.commands.second import SecondRequest, run_pair
from kedge_runtime.confidence import coverage, sentences
from kedge_runtime.confidence.coverage import CoverageCost
from kedge_runtime.confidence.fit import check, fitted
from kedge_runtime.confidence.labelled import Asked, LabelledImages, ask, read_labels
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import UsageError, about
from kedge_runtime.output import echo, echo_json, note, quiet, say
from kedge_runtime.progress import Bar

if TYPE_CHECKING:
    from kedge_runtime.field.sketch import Sketch

AGREE = 0.99
COUNT = 2000  # images: the interval of a coverage is 2 points wide then


@dataclass(frozen=True)
class CalibrateOptions:
    """The options of `kedge calibrate`."""

    file: Path
    images: Path
    truth: str
    count: int
    second: Path | None
    against: Path | None
    agree: float | None
    calls: float | None
    out: Path | None
    engine: EngineOptions
    as_json: bool

    def __post_init__(self) -> None:
        """Refuse options of the one calibration beside those of the other."""
        idle = {"--against": self.against, "--agree": self.agree, "--calls": self.calls}
        for option, value in idle.items():
            if self.second is None and value is not None:
                raise UsageError(f"{option}: is for a second opinion; give --second FILE2, too")
        if self.second and self.against is None:
            raise UsageError("--second: needs --against NPZ, of `kedge drift --record NPZ`")
        if self.second and self.truth != "auto":
            raise UsageError("--truth: a second opinion needs no ground truth; leave it out")

    def destination(self, content: ModelContent) -> Path:
        """Return the file to write. Raises UsageError for a name of another format."""
        path = self.out or self.file.resolve()  # the target of a link, not the link
        if path.suffix.lower() != f".{content.format}":
            raise UsageError(f"--out: got {path}, its name must end in .{content.format}")
        return path


@click.command()
@click.argument("file", type=PLACE, metavar="FILE")
@click.option(
    "--images",
    required=True,
    type=PLACE,
    metavar="LABELLED",
    help="Folder of labelled images that neither training nor conversion used; for --second they "
    "need no labels.",
)
@click.option(
    "--truth",
    default="auto",
    show_default=True,
    metavar="HOW|FILE",
    help="Ground truth: auto, synset (file names), folders, or a table file,label. A multi-label "
    "model needs a table with a row for each label of an image.",
)
@click.option(
    "--count",
    default=COUNT,
    show_default=True,
    type=click.IntRange(min=1),
    help="Most images to use, drawn at random.",
)
@click.option(
    "--second",
    type=FILE,
    metavar="FILE2",
    help="Choose the margin below which `classify --second FILE2` asks FILE2 again.",
)
@click.option(
    "--against",
    type=FILE,
    metavar="NPZ",
    help="For --second: the float model's answers to the images, of `kedge drift --record`.",
)
@click.option(
    "--agree",
    type=SHARE,
    help="For --second: the least agreement of the pair with the float model [default: .99].",
)
@click.option(
    "--calls",
    type=SHARE,
    help="For --second: ask this share of images again if fewer would do, for more agreement.",
)
@click.option("--out", type=FILE, metavar="FILE", help="[default: FILE itself]")
@isolated_engine_options
@as_json
def calibrate(**options: Any) -> int:
    """Fit the confidence of the sealed FILE to labelled images.

    Half of the images fits the temperature, or the thresholds of a multi-label model. The others
    measure the calibration error, and set the floors of `kedge classify --coverage`. The best class
    of an image never changes. The result is stored in FILE's contract: its digest changes, and a
    signature is removed. The images that calibrated or validated FILE at its conversion are left
    out.
    """
    return run(CalibrateOptions(**options))


def run(options: CalibrateOptions) -> int:
    """Calibrate a file and print what was measured; return the exit code."""
    content = read_content(options.file)
    path = options.destination(content)
    if options.second and options.against:
        pair = _pair(options, path, options.second, options.against)
        code = run_pair(pair, as_json=options.as_json)
        say_unread(options.images)
        return code
    artefact_of(content)  # before the images are listed
    with quiet():
        classifier = Classifier.of(content, options.engine)
    with about(options.file):
        check(classifier.contract.output, options.count)
    images = read_labels(options.images, options.truth, classifier.contract, options.count)
    asked, looks = _asked(classifier, images, options.file.name)
    say_unread(options.images)
    for line in asked.lines():
        note(line)
    with about(options.file):
        contract = fitted(classifier.contract, asked.labelled)
    sketch = _sketch(contract, asked, looks) if looks else None
    digest = write_resealed(path, resealed(content, contract, sketch))
    signed = is_signed(content)
    _print(options, CalibrateReport.of(path, digest, contract, asked, signed=signed))
    if signed:
        say(f"{path}: its signature is gone; sign it again with `kedge sign`")
    return 0


def _asked(
    classifier: Classifier, images: LabelledImages, name: str
) -> tuple[Asked, Sequence[Floats]]:
    """Run a file on the images; for one with a sketch return their statistics for a new one."""
    looks = list[Floats]()

    def look(fitted: Pixels) -> None:
        from kedge_runtime.field.measure import image_statistics

        if classifier.artefact.packed_sketch:
            looks.append(image_statistics(fitted))

    with Bar(name, len(images.paths)) as bar:
        return ask(classifier, images, lambda: bar.advance(1), look), looks


def _sketch(contract: Contract, asked: Asked, looks: Sequence[Floats]) -> "Sketch":
    """Return a sketch of the answers: the earlier one has the earlier confidence."""
    from kedge_runtime.field.sketching import sketch_answers

    answers = asked.labelled
    truth = None if contract.output.multi_label else answers.truth.tolist()
    return sketch_answers(contract, answers.outputs, looks, truth)


def _pair(options: CalibrateOptions, out: Path, second: Path, reference: Path) -> SecondRequest:
    return SecondRequest(
        file=options.file,
        second=second,
        reference=reference,
        folder=options.images,
        agree=AGREE if options.agree is None else options.agree,
        calls=options.calls or 0.0,
        count=options.count,
        out=out,
        engine=options.engine,
    )


@dataclass(frozen=True)
class CalibrateReport:
    """What `kedge calibrate --json` prints, but for the head."""

    artefact: str
    digest: str
    temperature: float
    thresholds: tuple[float, ...]
    confidence: dict[str, Any]
    coverage: tuple[CoverageCost, ...]
    left_out: dict[str, int]
    signature_removed: bool

    @classmethod
    def of(
        cls, path: Path, digest: str, contract: Contract, asked: Asked, *, signed: bool
    ) -> "CalibrateReport":
        """Return the report on a calibrated contract."""
        return cls(
            artefact=str(path),
            digest=digest,
            temperature=contract.output.temperature,
            thresholds=contract.output.thresholds,
            confidence=sentences.plain(contract),
            coverage=_costs(contract, asked),
            left_out=asked.left_out,
            signature_removed=signed,
        )


def _costs(contract: Contract, asked: Asked) -> tuple[CoverageCost, ...]:
    if contract.confidence is None:
        return ()
    values = probabilities(asked.labelled.outputs, contract.output)
    return coverage.costs(contract.confidence, values)


def _print(options: CalibrateOptions, report: CalibrateReport) -> None:
    if options.as_json:
        echo_json({"schema": 1, "command": "calibrate", **asdict(report)})
    else:
        echo(*_lines(report))


def _lines(report: CalibrateReport) -> Iterator[str]:
    yield report.artefact
    yield from (f"  {line}" for line in sentences.fitted(report.confidence))
    yield f"  {'coverage':<10}{'in the long run':<22}{'labels':>8}{'unknown':>10}"
    for cost in report.coverage:
        yield f"  {sentences.cost_row(cost)}"
