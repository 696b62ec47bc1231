"""`kedge drift`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from kedge_runtime.artefact.content import read_content
from kedge_runtime.commands.drift_table import notes, table
from kedge_runtime.commands.options import (
    DROP,
    SHARE,
    isolate_option,
    read_trust,
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
from kedge_runtime.drift.journal import Pictures
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
from kedge_runtime.engines.choice import ENGINES, EngineOptions
from kedge_runtime.errors import UsageError
from kedge_runtime.files import check_place, temporary_folder, write_whole
from kedge_runtime.identity import identity
from kedge_runtime.image.folder import unread_files
from kedge_runtime.output import json_text, say
from kedge_runtime.pool.executors import MAX_JOBS, Pool

PLACE = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("artefacts", nargs=-1, required=True, type=PLACE, metavar="ARTEFACT...")
@click.option("--images", required=True, type=PLACE, metavar="DIR", help="Folder of pictures.")
@click.option(
    "--against",
    required=True,
    metavar="MODEL|NPZ|ARTEFACT",
    help="The original: a card's name, demo, a model's file; a reference recorded from it; or "
    "another artefact.",
)
@click.option("--weights", default="imagenet", show_default=True, help="For a card: see convert.")
@click.option(
    "--labels",
    default="auto",
    show_default=True,
    metavar="HOW|FILE",
    help="auto, none, synset (file names), folders, a table file,label, or ILSVRC's files.",
)
@click.option(
    "--max-drop", type=DROP, help="Largest drop of top-1, e.g. 1pp [default with labels: 1pp]."
)
@click.option(
    "--min-agreement",
    type=SHARE,
    help="Least share of equal answers [default without labels: .95].",
)
@click.option("--record", type=FILE, metavar="NPZ", help="Keep the original's answers here.")
@click.option(
    "--attribute",
    type=click.IntRange(min=1),
    metavar="N",
    help="Say what the drift comes from, on N pictures; takes a second each.",
)
@click.option(
    "--by-layer",
    type=click.IntRange(min=1),
    metavar="N",
    help="Name the layers that lose most, on N pictures; with --out, draw them.",
)
@click.option("--engine", type=click.Choice(list(ENGINES)), help="[default: the format's]")
@click.option("--delegate", help="edgetpu[:usb|pci|N], or a delegate's library.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads of the engine [default: all cores]."
)
@isolate_option
@click.option(
    "--out", type=FILE, metavar="JSON", help="Write the report; a run that was stopped goes on."
)
@click.option(
    "--jobs",
    type=click.IntRange(1, MAX_JOBS),
    default=1,
    show_default=True,
    help="Processes at once; give --threads, too, so that they don't crowd each other.",
)
@trust_options
@scheduler
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def drift(**options: Any) -> int:
    """Tell how far artefacts have drifted from the float original, with a verdict.

    Both answer the same pictures. A gate passes or fails when the whole 95 % interval of its figure
    does; else the verdict is inconclusive, and says how many pictures would decide.

    Exit codes: 0 all passed, 1 a gate failed, 2 a mistake, 3 inconclusive.
    """
    _check(options)
    comparison = prepare(_request(options))
    original = Original(options["against"], options["weights"], comparison.artefacts[0])
    with _reference(original, comparison.pictures, options) as reference:
        drifts = compare(comparison, reference)
        about = _about(Reference(reference))
    if options["attribute"]:
        drifts = _attributed(original, comparison, drifts, options["attribute"])
    report = _plain(comparison, about, drifts)
    lines = [*map(table, drifts)]
    if options["by_layer"]:
        lines += _by_layer(original, comparison, report, options)
    _publish(report, lines, options)
    if others := unread_files(options["images"]):
        say(f"{options['images']}: {others}")
    for drift in drifts:
        for line in notes(drift):
            say(line)
    finish(comparison.request)
    return EXIT_CODES[worst([drift.verdict for drift in drifts])]


def _check(options: dict[str, Any]) -> None:
    """Refuse, before hours are spent, places that can't be written and idle options."""
    for name, suffix in {"record": SUFFIX, "out": ".json"}.items():
        if options[name]:
            check_place("--" + name, options[name], suffix)
    if options["scheduler"] and not (options["record"] or is_reference(options["against"])):
        raise UsageError(
            "--scheduler: its workers read the original's answers: say with --record where "
            "they see them, too"
        )
    idle = ["attribute", "by_layer"]
    if is_reference(options["against"]):
        idle.append("record")
    elif not is_artefact(options["against"]):
        return
    for name in idle:
        if options[name]:
            option = name.replace("_", "-")
            raise UsageError(f"--{option}: needs the model itself: give --against MODEL")


def _request(options: dict[str, Any]) -> DriftRequest:
    engine = {name: options[name] for name in ("threads", "delegate", "engine", "isolate")}
    return DriftRequest(
        artefacts=options["artefacts"],
        images=options["images"],
        labels=options["labels"],
        limits=GateLimits(options["max_drop"], options["min_agreement"]),
        options=EngineOptions(**engine),
        out=options["out"],
        pool=Pool(options["jobs"], options["scheduler"]),
        trust=read_trust(options),
    )


@contextmanager
def _reference(original: Original, pictures: Pictures, options: dict[str, Any]) -> Iterator[Path]:
    """Yield the reference that was given, or one recorded from the original.

    It is kept where --record says; without it, until the report of --out is written.
    """
    if original.is_recorded:
        yield Path(original.model)
        return
    with temporary_folder() as folder:
        until_done = options["out"] and unfinished_reference(options["out"])
        path = options["record"] or until_done or folder / f"reference{SUFFIX}"
        if is_artefact(original.model):
            model = read_content(Path(original.model), trust=read_trust(options))
            record_artefact(model, original.artefact, pictures, path)
        else:
            _refuse_foreign(original)
            converter().record(original, pictures, path)
        yield path


def _refuse_foreign(original: Original) -> None:
    """Raise UsageError for an artefact of which nobody knows what it was made from."""
    if original.artefact.contract.provenance.precision == "unknown":
        raise UsageError(
            f"--against: {original.artefact.path} was sealed by `kedge seal`, which knows no float "
            "model: give another artefact (.tflite, .onnx), or a reference recorded from one"
        )


def _attributed(
    original: Original, comparison: Comparison, drifts: list[Drift], count: int
) -> list[Drift]:
    """Return the drifts with what each comes from, on `count` of the pictures."""
    sample, options = comparison.sample(count), comparison.request.options
    found = converter().attribute(original, comparison.artefacts, sample, options)
    return [replace(drift, attribution=each) for drift, each in zip(drifts, found, strict=True)]


def _by_layer(
    original: Original, comparison: Comparison, report: dict[str, Any], options: dict[str, Any]
) -> list[str]:
    """Return each artefact's worst layers in words; the report gets them all."""
    found = converter().localised(
        original, comparison.artefacts, comparison.sample(options["by_layer"])
    )
    report["by_layer"] = [converter().plain(each) for each in found]
    if options["out"]:
        converter().draw(found, options["out"])
    return [converter().table(each) for each in found]


def _about(reference: Reference) -> dict[str, Any]:
    facts = reference.facts
    return {
        "path": str(reference.path),
        "digest": reference.digest,
        "source": facts.source,
        "weights_digest": facts.weights_digest,
        "pictures": len(reference.names),
        "tools": facts.tools,
    }


def _plain(comparison: Comparison, about: dict[str, Any], drifts: list[Drift]) -> dict[str, Any]:
    """Return the documented object (docs/json.md)."""
    return {
        "schema": 1,
        "command": "drift",
        "machine": identity(),
        "images": str(comparison.request.images),
        "pictures": len(comparison.pictures.names),
        "labels": comparison.request.labels,
        "reference": about,
        "verdict": worst([drift.verdict for drift in drifts]),
        "drifts": [asdict(drift) for drift in drifts],
    }


def _publish(report: dict[str, Any], lines: list[str], options: dict[str, Any]) -> None:
    text = json_text(report)
    if options["out"]:
        write_whole(options["out"], text.encode() + b"\n")
    click.echo(text if options["as_json"] else "\n\n".join(lines))
