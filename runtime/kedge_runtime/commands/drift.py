"""Measure the accuracy drift of artefacts: the command `kedge drift`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge_runtime.artefact.content import read_content
from kedge_runtime.commands.drift_table import notes, table
from kedge_runtime.commands.options import (
    DROP,
    FILE,
    PLACE,
    SHARE,
    as_json,
    isolated_engine_options,
    scheduler,
    trust_options,
)
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
    Original,
    converter,
    is_artefact,
    is_reference,
    record_artefact,
)
from kedge_runtime.drift.reference import SUFFIX, Reference
from kedge_runtime.drift.report import Drift
from kedge_runtime.drift.summary import GateLimits
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import UsageError
from kedge_runtime.files import check_place, temporary_folder, write_whole
from kedge_runtime.identity import identity
from kedge_runtime.image.folder import unread_files
from kedge_runtime.output import json_text, say
from kedge_runtime.pool.executors import MAX_JOBS, Pool

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
    jobs: int
    trust: "Trust | None"
    scheduler: str | None
    as_json: bool

    def __post_init__(self) -> None:
        """Check the options now: the measurement may take hours."""
        files = {"--record": (self.record, SUFFIX), "--out": (self.out, ".json")}
        for option, (path, suffix) in files.items():
            if path:
                check_place(option, path, suffix)
        if self.scheduler and not (self.record or is_reference(self.against)):
            raise UsageError(
                "--scheduler: its workers read the float model's answers: "
                "give a path that they see with --record"
            )
        for option in self._idle():
            raise UsageError(f"{option}: needs the model itself: give --against MODEL")

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
            images=self.images,
            labels=self.truth,
            limits=GateLimits(self.max_drop, self.min_agreement),
            options=self.engine,
            out=self.out,
            pool=Pool(self.jobs, self.scheduler),
            trust=self.trust,
        )


@click.command()
@click.argument("artefacts", nargs=-1, required=True, type=PLACE, metavar="ARTEFACT...")
@click.option("--images", required=True, type=PLACE, metavar="DIR", help="Folder of images.")
@click.option(
    "--against",
    required=True,
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
    help="Maximum drop of top-1 accuracy, e.g. 1pp [default with ground truth: 1pp].",
)
@click.option(
    "--min-agreement",
    type=SHARE,
    help="Minimum agreement with the float model [default without ground truth: .95].",
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
    "--jobs",
    type=click.IntRange(1, MAX_JOBS),
    default=1,
    show_default=True,
    help="Number of parallel processes; share the cores among them with --threads.",
)
@trust_options
@scheduler
@as_json
def drift(**options: Any) -> int:
    """Measure the accuracy drift of artefacts against the float model, with a verdict.

    Both classify the same images. A gate passes or fails when the whole 95 % interval of its value
    does. Otherwise the verdict is inconclusive, with the number of images that would decide.

    Exit codes: 0 all passed, 1 a gate failed, 2 usage error, 3 inconclusive.
    """
    return run(DriftOptions(**options))


def run(options: DriftOptions) -> int:
    """Compare the artefacts with the float model, and print the report; return the exit code."""
    comparison = prepare(options.request)
    original = Original(options.against, options.weights, comparison.artefacts[0])
    with _reference(original, comparison, options) as path:
        drifts = compare(comparison, path)
        reference = _reference_payload(Reference(path))
    if options.attribute:
        drifts = _attribute(original, comparison, drifts, options.attribute)
    payload, tables = _payload(comparison, reference, drifts), [*map(table, drifts)]
    if options.by_layer:
        layers = converter().localised(
            original, comparison.artefacts, comparison.sample(options.by_layer)
        )
        payload["by_layer"] = [converter().plain(each) for each in layers]
        tables += [converter().table(each) for each in layers]
        if options.out:
            converter().draw(layers, options.out)
    _publish(json_text(payload), tables, options)
    _say_notes(drifts, options.images)
    finish(comparison.request)
    return EXIT_CODES[worst([drift.verdict for drift in drifts])]


@contextmanager
def _reference(original: Original, comparison: Comparison, options: DriftOptions) -> Iterator[Path]:
    """Yield the given reference, or one recorded from the float model.

    A recorded one is saved at --record. Without it, it is kept until the report of --out is
    written.
    """
    if original.is_recorded:
        yield Path(original.model)
        return
    with temporary_folder() as folder:
        until_done = options.out and unfinished_reference(options.out)
        path = options.record or until_done or folder / f"reference{SUFFIX}"
        if is_artefact(original.model):
            model = read_content(Path(original.model), trust=options.trust)
            record_artefact(model, original.artefact, comparison.pictures, path)
        else:
            _refuse_foreign(original)
            converter().record(original, comparison.pictures, path)
        yield path


def _refuse_foreign(original: Original) -> None:
    """Raise UsageError for an artefact whose float model is unknown."""
    if original.artefact.contract.provenance.precision == "unknown":
        raise UsageError(
            f"--against: {original.artefact.path} was sealed by `kedge seal`, which knows no float "
            "model: give another artefact (.tflite, .onnx), or a reference recorded from one"
        )


def _attribute(
    original: Original, comparison: Comparison, drifts: Sequence[Drift], count: int
) -> list[Drift]:
    """Return the drifts with the causes of each, measured on `count` of the images."""
    sample, engine = comparison.sample(count), comparison.request.options
    causes = converter().attribute(original, comparison.artefacts, sample, engine)
    return [replace(drift, attribution=each) for drift, each in zip(drifts, causes, strict=True)]


def _reference_payload(reference: Reference) -> dict[str, Any]:
    facts = reference.facts
    return {
        "path": str(reference.path),
        "digest": reference.digest,
        "source": facts.source,
        "weights_digest": facts.weights_digest,
        "images": len(reference.names),
        "tools": facts.tools,
    }


def _payload(
    comparison: Comparison, reference: dict[str, Any], drifts: Sequence[Drift]
) -> dict[str, Any]:
    """Return the documented object (docs/json.md)."""
    return {
        "schema": 1,
        "command": "drift",
        "machine": identity(),
        "folder": str(comparison.request.images),
        "images": len(comparison.pictures.names),
        "truth": comparison.request.labels,
        "reference": reference,
        "verdict": worst([drift.verdict for drift in drifts]),
        "drifts": [asdict(drift) for drift in drifts],
    }


def _publish(report: str, tables: Sequence[str], options: DriftOptions) -> None:
    if options.out:
        write_whole(options.out, report.encode() + b"\n")
    click.echo(report if options.as_json else "\n\n".join(tables))


def _say_notes(drifts: Sequence[Drift], folder: Path) -> None:
    """Print on stderr the files that were skipped, and each drift's notes."""
    if others := unread_files(folder):
        say(f"{folder}: {others}")
    for drift in drifts:
        for line in notes(drift):
            say(line)
