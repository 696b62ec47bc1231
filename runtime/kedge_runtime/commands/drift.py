"""Measure the accuracy drift of artefacts: the command `kedge drift`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kedge_runtime.artefact.content import read_content
from kedge_runtime.checks.hardware import identity
from kedge_runtime.commands import field
from kedge_runtime.commands.arguments import DROP, SHARE, say_unread
from kedge_runtime.commands.drift_table import notes, table
from kedge_runtime.commands.options import (
    as_json,
    isolated_engine_options,
    scheduler,
    trust_options,
)
from kedge_runtime.commands.paths import FILE, PLACE
from kedge_runtime.drift.comparison import (
    Comparison,
    DriftRequest,
    compare,
    finish,
    prepare,
    unfinished_reference,
)
from kedge_runtime.drift.gates import EXIT_CODES, worst
from kedge_runtime.drift.recording import (
    Against,
    LayerFindings,
    converter,
    is_artefact,
    is_reference,
    record_artefact,
)
from kedge_runtime.drift.reference import SUFFIX, Reference
from kedge_runtime.drift.report import Drift, DriftReport, ReferenceReport
from kedge_runtime.drift.summary import GateLimits
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import UsageError
from kedge_runtime.files import check_place, temporary_folder, write_whole
from kedge_runtime.frozen import dataclass
from kedge_runtime.output import echo_page, json_text, say
from kedge_runtime.pool import MAX_JOBS, Pool

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust


@dataclass(frozen=True)
class DriftOptions:
    """The options of `kedge drift`. Raises UsageError for unwritable paths and idle options."""

    artefacts: tuple[Path, ...]
    images: Path
    against: str
    weights: str
    truth: str
    max_drop: float | None
    min_agreement: float | None
    record: Path | None
    attribute: int | None
    by_layer: int | None
    engine: EngineOptions
    out: Path | None
    report: Path | None
    jobs: int
    trust: "Trust | None"
    scheduler: str | None
    as_json: bool

    def __post_init__(self) -> None:
        """Check the options now: the measurement may take hours."""
        files = {"--record": (self.record, SUFFIX), "--out": (self.out, ".json")}
        files["--report"] = (self.report, ".html")
        for option, (path, suffix) in files.items():
            if path:
                check_place(option, path, suffix)
        if self.scheduler and not (self.record or is_reference(self.against)):
            raise UsageError(
                "--scheduler: its workers read the float model's answers: "
                "give a path that they see with --record"
            )
        for option in self._idle():
            raise UsageError(f"{option}: needs the float model; give --against MODEL")

    def _idle(self) -> list[str]:
        """Return the options that have no effect without a float model."""
        idle = {"--attribute": bool(self.attribute), "--by-layer": bool(self.by_layer)}
        if is_reference(self.against):
            idle["--record"] = self.record is not None
        elif not is_artefact(self.against):
            return []
        return [option for option, is_given in idle.items() if is_given]

    @property
    def request(self) -> DriftRequest:
        """The comparison to make."""
        return DriftRequest(
            artefacts=self.artefacts,
            folder=self.images,
            truth=self.truth,
            limits=GateLimits(self.max_drop, self.min_agreement),
            engine=self.engine,
            out=self.out,
            pool=Pool(self.jobs, self.scheduler),
            trust=self.trust,
        )


@click.command()
@click.argument("artefacts", nargs=-1, required=True, type=PLACE, metavar="ARTEFACT...")
@click.option("--images", type=PLACE, metavar="DIR", help="Folder of images.")
@click.option(
    "--field",
    type=PLACE,
    metavar="DIR|VIDEO",
    help="Hold images of the field against the artefact's own calibration; needs no float model.",
)
@click.option(
    "--against",
    metavar="MODEL|NPZ|ARTEFACT",
    help="The float model: a card's name, demo or a model file; a reference recorded from it; or "
    "another artefact.",
)
@click.option(
    "--weights", default="imagenet", show_default=True, help="Weights of a card: see convert."
)
@click.option(
    "--truth",
    default="auto",
    show_default=True,
    metavar="HOW|FILE",
    help="Ground truth: auto, none, synset (file names), folders, a table file,label, or ILSVRC's "
    "files.",
)
@click.option(
    "--max-drop",
    type=DROP,
    help="Maximum drop of top-1 accuracy [default with 1000 labelled images: 1pp].",
)
@click.option(
    "--min-agreement",
    type=SHARE,
    help="Minimum agreement with the float model [default with fewer: .95].",
)
@click.option("--record", type=FILE, metavar="NPZ", help="Save the float model's answers.")
@click.option(
    "--attribute",
    type=click.IntRange(min=1),
    metavar="N",
    help="Attribute the drift to its causes on N images; takes a second each.",
)
@click.option(
    "--by-layer",
    type=click.IntRange(min=1),
    metavar="N",
    help="List the layers with the largest loss on N images; with --out, draw a chart.",
)
@isolated_engine_options
@click.option(
    "--out",
    type=FILE,
    metavar="JSON",
    help="Write the report. An interrupted run resumes.",
)
@click.option(
    "--report",
    type=FILE,
    metavar="HTML",
    help="Write a page for a browser: confusions, classes, thresholds, flips.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, MAX_JOBS),
    default=1,
    show_default=True,
    help="Number of parallel processes; share the cores among them with --threads.",
)
@trust_options
@scheduler
@as_json
@click.pass_context
def drift(context: click.Context, /, **options: Any) -> int:
    """Measure the accuracy drift of artefacts against the float model, with a verdict.

    Both classify the same images. A gate passes or fails when the whole 95 % interval of its value
    does. Otherwise the verdict is inconclusive, and says how many more images would decide.

    Exit codes: 0 all passed, 1 a gate failed, 2 usage error, 3 inconclusive.
    """
    if options["field"]:
        given = [name for name in options if _is_given(context, name)]
        field.refuse_others(given)
        return field.run(field.FieldOptions(**{name: options[name] for name in field.ALLOWED}))
    del options["field"]
    for parameter in context.command.params:
        if parameter.name in ("images", "against") and not options[parameter.name]:
            raise click.MissingParameter(ctx=context, param=parameter)
    return run(DriftOptions(**options))


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def run(options: DriftOptions) -> int:
    """Measure, print and write the report; return the exit code of the worst verdict."""
    if options.report:
        converter()  # before the measurement: it may be missing
    comparison = prepare(options.request)
    against = Against(options.against, options.weights, comparison.artefacts[0])
    with _reference(against, comparison, options) as path:
        drifts = compare(comparison, path)
        reference = _described(Reference(path))
    if options.attribute:
        drifts = _attributed(against, comparison, drifts, options.attribute)
    layers = _by_layer(against, comparison, options) if options.by_layer else []
    report = DriftReport(
        machine=identity(),
        folder=str(options.images),
        images=len(comparison.images.names),
        truth=options.truth,
        reference=reference,
        verdict=worst([drift.verdict for drift in drifts]),
        drifts=tuple(drifts),
        by_layer=tuple(each.plain for each in layers) if layers else None,
    )
    _publish(options, report, layers)
    finish(comparison.request)
    return EXIT_CODES[report.verdict]


@contextmanager
def _reference(against: Against, comparison: Comparison, options: DriftOptions) -> Iterator[Path]:
    """Yield the path of a reference: the recorded one, or one that is recorded now.

    It is kept at --record; without that, until the report of --out is written.
    """
    if against.is_recorded:
        yield Path(against.model)
        return
    with temporary_folder() as folder:
        unfinished = options.out and unfinished_reference(options.out)
        path = options.record or unfinished or folder / f"reference{SUFFIX}"
        if is_artefact(against.model):
            model = read_content(Path(against.model), trust=options.trust)
            record_artefact(model, against.artefact, comparison.images, path)
        else:
            _refuse_foreign(against)
            converter().record(against, comparison.images, path)
        yield path


def _refuse_foreign(against: Against) -> None:
    """Raise UsageError for an artefact of `kedge seal`, whose float model is unknown."""
    if against.artefact.contract.provenance.precision == "unknown":
        raise UsageError(
            f"--against: {against.artefact.path} comes from `kedge seal`, which has no float "
            "model; give another artefact (.tflite, .onnx), or a reference recorded from one"
        )


def _attributed(
    against: Against, comparison: Comparison, drifts: list[Drift], count: int
) -> list[Drift]:
    """Return the drifts with what each step adds, on `count` of the images."""
    sample, engine = comparison.sample(count), comparison.request.engine
    attributions = converter().attribute(against, comparison.artefacts, sample, engine)
    pairs = zip(drifts, attributions, strict=True)
    return [replace(drift, attribution=attribution) for drift, attribution in pairs]


def _by_layer(
    against: Against, comparison: Comparison, options: DriftOptions
) -> list[LayerFindings]:
    """Return each artefact's layers, and draw them beside the report: REPORT.ARTEFACT.svg."""
    sample = comparison.sample(options.by_layer or 0)
    layers = converter().localise(against, comparison.artefacts, sample)
    if out := options.out:
        for each in layers:
            path = out.with_name(f"{out.stem}.{each.artefact}.svg")
            write_whole(path, each.chart.encode())
    return layers


def _described(reference: Reference) -> ReferenceReport:
    facts = reference.facts
    return ReferenceReport(
        path=str(reference.path),
        digest=reference.digest,
        source=facts.source,
        weights_digest=facts.weights_digest,
        images=len(reference.names),
        tools=facts.tools,
    )


def _publish(options: DriftOptions, report: DriftReport, layers: list[LayerFindings]) -> None:
    text = json_text(report.plain())
    if options.out:
        write_whole(options.out, text.encode() + b"\n")
    if options.report:
        # An image's name may not be text.
        write_whole(options.report, converter().page(report).encode(errors="replace"))
        say(f"wrote {options.report}")
    tables = [*map(table, report.drifts), *(each.table for each in layers)]
    echo_page(text if options.as_json else "\n\n".join(tables))
    say_unread(options.images)
    for drift in report.drifts:
        for line in notes(drift, table_shown=not options.as_json):
            say(line)
