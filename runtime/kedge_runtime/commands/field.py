"""Hold images of the field against an artefact's sketch: `kedge drift FILE --field DIR`."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedge_runtime.artefact.content import read_content
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.commands.arguments import say_unread
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.field.folder import FieldReport, Named, check, items
from kedge_runtime.field.monitor import sketch_in
from kedge_runtime.output import echo, echo_json, percent, say
from kedge_runtime.progress import Bar

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust

OPTION = "--field"
# Options of drift that have a meaning with --field.
ALLOWED = frozenset({"artefacts", "field", "engine", "trust", "as_json"})


@dataclass(frozen=True)
class FieldOptions:
    """The options of `kedge drift --field`."""

    artefacts: tuple[Path, ...]
    field: Path
    engine: EngineOptions
    trust: "Trust | None"
    as_json: bool


def refuse_others(given: Sequence[str]) -> None:
    """Raise UsageError for options that need a float model; `given`: names as in Python."""
    for name in given:
        if name not in ALLOWED:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option}: compares with a float model; omit it or {OPTION}")


def run(options: FieldOptions) -> int:
    """Check, print, and return the exit code: 1 after an alarm."""
    if len(options.artefacts) != 1:
        raise UsageError(f"{OPTION}: got {counted(len(options.artefacts), 'artefact')}, give one")
    content = read_content(options.artefacts[0], trust=options.trust)
    with Classifier.of(content, options.engine) as classifier:
        classifier.check_answers()
        sketch_in(classifier.artefact)  # before the images are listed
        images = items(options.field, OPTION)
        total = len(images) if isinstance(images, list) else None
        with Bar("field", total) as bar:
            report = check(classifier, images, bar.advance)
    if not options.field.is_file():
        say_unread(options.field)
    for line in report.unread:
        say(line)
    if not report.images:
        raise UsageError(f"{OPTION}: {options.field}: no readable image in it; give others")
    if options.as_json:
        echo_json(plain(report, options))
    else:
        echo(*lines(report))
    return int(report.is_alarm)


def lines(report: FieldReport) -> Iterator[str]:
    """Yield the lines of the report for people."""
    for named in report.findings:
        yield from _lines(named)
    if not report.findings:
        yield f"nothing changed in {counted(report.images, 'image')}"
    if report.accuracy:
        before = report.accuracy.calibration
        now = report.accuracy.field
        known = "" if before is None or now is None else f": {percent(now)}, was {percent(before)}"
        lost = 100 * report.accuracy.lost
        yield (
            f"accuracy by estimate, last {counted(report.accuracy.frames, 'image')}{known} "
            f"({abs(lost):.1f} points {'gained' if lost < 0 else 'lost'})"
        )


def _lines(named: Named) -> Iterator[str]:
    yield f"{named.finding.kind}: {named.finding.text(named.since)} (noticed at {named.at})"
    if named.look:
        yield f"  look at {', '.join(named.look)}"


def plain(report: FieldReport, options: FieldOptions) -> dict[str, Any]:
    """Return the report for JSON (docs/json.md)."""
    accuracy = report.accuracy
    return {
        "schema": 1,
        "command": "drift",
        "artefact": str(options.artefacts[0]),
        "field": str(options.field),
        "images": report.images,
        "unread": len(report.unread),
        "alarm": report.is_alarm,
        "accuracy": accuracy and {**asdict(accuracy), "field": accuracy.field},
        "findings": [_plain(named) for named in report.findings],
    }


def _plain(named: Named) -> dict[str, Any]:
    finding = named.finding
    return {
        "kind": finding.kind,
        "name": finding.name,
        "text": finding.text(named.since),
        "since": named.since,
        "noticed": named.at,
        "shift": finding.shift,
        "accuracy_lost": finding.accuracy.lost if finding.accuracy else None,
        "look": list(named.look),
    }
