"""A drift as a person reads it, in 80 columns."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from kedge_runtime.commands.answers import short
from kedge_runtime.drift.gates import Estimate, Gate, Verdict
from kedge_runtime.drift.report import Accuracy, Drift, Labels, MarginBin, Side
from kedge_runtime.output import page, paint

WORDS = {"max_drop": "drop of top-1", "min_agreement": "agreement"}
COLOURS: dict[Verdict, str] = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}
LISTED = 5
NAME_COLUMNS = 20


def table(drift: Drift) -> str:
    """Return one artefact's figures, flips, classes and gates."""
    lines = [*_head(drift), "", *_figures(drift), "", *_flips(drift), *_classes(drift)]
    return page([*lines, *_attribution(drift), "", *map(_gate, drift.gates)])


def _head(drift: Drift) -> Iterator[str]:
    artefact, latency = drift.artefact, drift.latency
    ratio = "" if artefact.ratio is None else f" ({artefact.ratio:.0%} of the float weights)"
    yield artefact.path
    yield (
        f"  {artefact.bytes / 1e6:.2f} MB{ratio}, {latency.median_ms:.1f} ms a picture "
        f"({artefact.engine}, {_plural(artefact.threads, 'thread')}), "
        f"{_plural(drift.pictures, 'picture')}"
    )


def _figures(drift: Drift) -> Iterator[str]:
    yield f"  {'':<20}{'original':>9}{'artefact':>10}{'difference':>12}   95 % interval"
    for name, accuracy in (("top-1", drift.top1), ("top-5", drift.top5)):
        if accuracy:
            yield _accuracy(name, accuracy)
    name = "agreement" if drift.agreement_by == "best" else "agreement of labels"
    for word, value in ((name, drift.agreement), ("in its top-5", drift.agreement_top5)):
        if value:
            yield f"  {word:<20}{'':>9}{value.value:>10.1%}{'':>12}   {_shares(value)}"
    if drift.calibration:
        sides = drift.calibration.original.ece, drift.calibration.artefact.ece
        yield _pair("calibration error", *sides, drift.calibration.shift)
    entropy = drift.entropy
    yield _pair("entropy", entropy.original, entropy.artefact, entropy.shift.value)
    distances = drift.distances
    yield f"  {'KL divergence':<20}{'':>9}{distances.kl:>10.4f} nats"
    if distances.sqnr is not None:
        yield (
            f"  {'outputs':<20}{'':>9}{distances.sqnr:>10.1f} dB, cosine {distances.cosine:.4f}, "
            f"largest error {distances.max_error:.2g}"
        )


def _accuracy(name: str, accuracy: Accuracy) -> str:
    drop = accuracy.drop
    change = Estimate(-drop.value, -drop.high, -drop.low)
    pairs = accuracy.pairs
    return (
        f"  {name:<20}{accuracy.original:>9.1%}{accuracy.artefact:>10.1%}"
        f"{_points(change.value):>12}   {_points(change.low)} .. {_points(change.high)}, "
        f"-{pairs.lost} +{pairs.gained}, p {accuracy.mcnemar:.2g}"
    )


def _pair(name: str, original: float, artefact: float, change: float) -> str:
    return f"  {name:<20}{original:>9.3f}{artefact:>10.3f}{change:>+12.3f}"


def _flips(drift: Drift) -> Iterator[str]:
    flips = drift.flips
    margin = "" if drift.agreement_by == "best" else " to the nearest threshold"
    yield f"  {_plural(flips.count, 'flip')}, by how sure the original was (its margin{margin}):"
    yield "  " + "".join(f"{f'{b.low:g}-{b.high:g}':>10}" for b in flips.by_margin)
    yield "  " + "".join(f"{_of(b):>10}" for b in flips.by_margin)
    for flip in flips.listed[:LISTED]:
        sides = map(_side, (flip.original, flip.artefact))
        yield f"    {short(flip.image, NAME_COLUMNS, keep_end=True)}: {' -> '.join(sides)}"


def _side(side: Side) -> str:
    if side.best:
        return f"{short(side.best.name, NAME_COLUMNS)} {side.best.probability:.0%}"
    labels = side.labels or Labels(0, ())
    return str(replace(labels, listed=tuple(short(name, NAME_COLUMNS) for name in labels.listed)))


def _of(found: MarginBin) -> str:
    return f"{found.flips}/{found.pictures}"


def _classes(drift: Drift) -> Iterator[str]:
    per = drift.per_class
    if per is None:
        return
    worst = ", ".join(
        short(found.name, NAME_COLUMNS) for found in per.classes[: min(per.drifted, LISTED)]
    )
    what = f": {worst}" if worst else ""
    yield (
        f"  {per.drifted} of {per.tested} classes drifted "
        f"(false discovery rate {per.level:.0%}){what}"
    )


def _attribution(drift: Drift) -> Iterator[str]:
    found = drift.attribution
    if found is None:
        return
    yield ""
    yield f"  what it comes from, on {_plural(found.pictures, 'picture')}:"
    yield f"  {'':<20}{'top-1':>9}{'disagree':>11}{'flips':>8}"
    for step in found.steps:
        yield f"{_part(step.name, step.drop, step.disagreement)}{step.flips:>8.1%}   {step.what}"
    yield f"{_part('total', found.drop, found.disagreement)}{found.disagreement:>8.1%}"


def _part(name: str, drop: Estimate | None, disagreement: float) -> str:
    change = "" if drop is None else _points(-drop.value)
    return f"  {name:<20}{change:>9}{_points(disagreement):>11}"


def _gate(gate: Gate) -> str:
    verdict = paint(gate.verdict, COLOURS[gate.verdict], bold=True)
    return f"  {verdict}  {_judged(gate)}"


def _judged(gate: Gate) -> str:
    value = gate.value
    if gate.name == "max_drop":
        figure, interval = _points(value.value), f"{_points(value.low)} .. {_points(value.high)}"
    else:
        figure, interval = f"{value.value:.1%}", _shares(value)
    return f"{WORDS[gate.name]} {figure} ({interval}), {_limit(gate)}"


def _limit(gate: Gate) -> str:
    if gate.name == "max_drop":
        return f"at most {_points(gate.limit)}"
    return f"at least {gate.limit:.1%}"


def notes(drift: Drift) -> Iterator[str]:
    """Yield a line for each picture that couldn't be read, LISTED of them, and each open gate."""
    for failure in drift.failed[:LISTED]:
        yield f"{failure.image}: {failure.error}"
    if drift.failed:
        counts = "counts" if len(drift.failed) == 1 else "count"
        yield f"{_plural(len(drift.failed), 'picture')} couldn't be read and {counts} for nothing"
    name = Path(drift.artefact.path).name
    for gate in drift.gates:
        if gate.verdict == "INCONCLUSIVE":
            yield f"{name}: {_too_few(drift.pictures, gate)}: {_needed(gate)}"


def _too_few(pictures: int, gate: Gate) -> str:
    """Say why a gate is open; its figure and verdict stand in the table already."""
    are = "is" if pictures == 1 else "are"
    what = f"{WORDS[gate.name]} is {_limit(gate)}"
    return f"{_plural(pictures, 'picture')} {are} too few to tell whether {what}"


def _needed(gate: Gate) -> str:
    naive = gate.images_as_measured
    if_exact = "none would" if naive is None else f"{naive:,} would"
    decide = "no number decides" if gate.images is None else f"{gate.images:,} decide"
    return (
        f"{decide} it in nine of ten cases ({if_exact} if what was measured were exact)"
    ).replace(",", " ")


def _points(share: float) -> str:
    # Rounded first: a zero has no sign.
    return f"{round(100 * share, 2) or 0:+.2f} pp".replace("+0.00", "0.00")


def _shares(value: Estimate) -> str:
    return f"{value.low:.1%} .. {value.high:.1%}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
