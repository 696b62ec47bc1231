"""Show a drift as text, in 80 columns."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from kedge_runtime.commands.answers import short
from kedge_runtime.drift.gates import Estimate, Gate, Verdict
from kedge_runtime.drift.report import Accuracy, Drift, Labels, MarginBin, Side
from kedge_runtime.errors import counted
from kedge_runtime.output import page, paint

NAMES = {"max_drop": "drop of top-1", "min_agreement": "agreement"}
COLOURS: dict[Verdict, str] = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}
LISTED = 5
NAME_COLUMNS = 20


def table(drift: Drift) -> str:
    """Return one artefact's figures, flips, classes, causes and gates."""
    lines = [*_head(drift), "", *_figures(drift), "", *_flips(drift), *_classes(drift)]
    return page([*lines, *_attribution(drift), "", *map(_gate, drift.gates)])


def _head(drift: Drift) -> Iterator[str]:
    artefact, latency = drift.artefact, drift.latency
    ratio = "" if artefact.ratio is None else f" ({artefact.ratio:.0%} of the float weights)"
    yield artefact.path
    yield (
        f"  {artefact.bytes / 1e6:.2f} MB{ratio}, {latency.median_ms:.1f} ms per image "
        f"({artefact.engine}, {counted(artefact.threads, 'thread')}), "
        f"{counted(drift.pictures, 'image')}"
    )


def _figures(drift: Drift) -> Iterator[str]:
    yield f"  {'':<20}{'float':>9}{'artefact':>10}{'drop, shift':>14}   95 % interval"
    for name, accuracy in (("top-1", drift.top1), ("top-5", drift.top5)):
        if accuracy:
            yield _accuracy(name, accuracy)
    name = "agreement" if drift.agreement_by == "best" else "agreement of labels"
    for word, value in ((name, drift.agreement), ("agreement of top-5", drift.agreement_top5)):
        if value:
            yield f"  {word:<20}{'':>9}{_percent(value.value):>10}{'':>14}   {_shares(value)}"
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
    drop, pairs = accuracy.drop, accuracy.pairs
    return (
        f"  {name:<20}{_percent(accuracy.original):>9}{_percent(accuracy.artefact):>10}"
        f"{_points(drop.value):>14}   {_interval(drop)}, "
        f"-{pairs.lost} +{pairs.gained}, p {accuracy.mcnemar:.2g}"
    )


def _pair(name: str, original: float, artefact: float, shift: float) -> str:
    return f"  {name:<20}{original:>9.3f}{artefact:>10.3f}{shift:>+14.3f}"


def _flips(drift: Drift) -> Iterator[str]:
    flips = drift.flips
    margin = "" if drift.agreement_by == "best" else " to the nearest threshold"
    yield f"  {counted(flips.count, 'flip')}, by the float model's margin{margin}:"
    yield "  " + "".join(f"{f'{b.low:g}-{b.high:g}':>10}" for b in flips.by_margin)
    yield "  " + "".join(f"{_share(b):>10}" for b in flips.by_margin)
    for flip in flips.listed[:LISTED]:
        sides = map(_side, (flip.original, flip.artefact))
        yield f"    {short(flip.image, NAME_COLUMNS, keep_end=True)}: {' -> '.join(sides)}"


def _side(side: Side) -> str:
    if side.best:
        return f"{short(side.best.name, NAME_COLUMNS)} {side.best.probability:.0%}"
    labels = side.labels or Labels(0, ())
    return str(replace(labels, listed=tuple(short(name, NAME_COLUMNS) for name in labels.listed)))


def _share(margin: MarginBin) -> str:
    return f"{margin.flips}/{margin.pictures}"


def _classes(drift: Drift) -> Iterator[str]:
    per = drift.per_class
    if per is None:
        return
    worst = ", ".join(
        short(each.name, NAME_COLUMNS) for each in per.classes[: min(per.drifted, LISTED)]
    )
    names = f": {worst}" if worst else ""
    yield (
        f"  {per.drifted} of {per.tested} classes drifted "
        f"(false discovery rate {per.level:.0%}){names}"
    )


def _attribution(drift: Drift) -> Iterator[str]:
    attribution = drift.attribution
    if attribution is None:
        return
    yield ""
    yield f"  causes, on {counted(attribution.pictures, 'image')}:"
    yield f"  {'':<20}{'drop':>14}{'disagreement':>14}{'flips':>9}"
    for step in attribution.steps:
        part = _part(step.name, step.drop, step.disagreement)
        yield f"{part}{_percent(step.flips):>9}   {step.what}"
    total = _part("total", attribution.drop, attribution.disagreement)
    yield f"{total}{_percent(attribution.disagreement):>9}"


def _part(name: str, drop: Estimate | None, disagreement: float) -> str:
    loss = "" if drop is None else _points(drop.value)
    return f"  {name:<20}{loss:>14}{_points(disagreement):>14}"


def _gate(gate: Gate) -> str:
    verdict = paint(gate.verdict, COLOURS[gate.verdict], bold=True)
    return f"  {verdict}  {_judgement(gate)}"


def _judgement(gate: Gate) -> str:
    value = gate.value
    if gate.name == "max_drop":
        figure, interval = _points(value.value), _interval(value)
    else:
        figure, interval = _percent(value.value), _shares(value)
    return f"{NAMES[gate.name]} {figure} ({interval}), {_limit(gate)}"


def _limit(gate: Gate) -> str:
    if gate.name == "max_drop":
        return f"at most {_points(gate.limit)}"
    return f"at least {_percent(gate.limit)}"


def notes(drift: Drift) -> Iterator[str]:
    """Yield a line for each unreadable image, up to LISTED, and for each inconclusive gate."""
    for failure in drift.failed[:LISTED]:
        yield f"{failure.image}: {failure.error}"
    if drift.failed:
        yield f"{counted(len(drift.failed), 'image')} skipped: can't be read"
    name = Path(drift.artefact.path).name
    for gate in drift.gates:
        if gate.verdict == "INCONCLUSIVE":
            yield f"{name}: {_too_few(drift.pictures, gate)}: {_needed(gate)}"


def _too_few(images: int, gate: Gate) -> str:
    """Return why a gate is inconclusive; the table has its value and verdict."""
    are = "is" if images == 1 else "are"
    goal = f"{NAMES[gate.name]} is {_limit(gate)}"
    return f"{counted(images, 'image')} {are} too few to decide whether {goal}"


def _needed(gate: Gate) -> str:
    if gate.images is None:
        return "no number of images decides it in nine of ten cases"
    return f"{gate.images:,} images decide it in nine of ten cases".replace(",", " ")


def _points(share: float) -> str:
    return f"{_number(share)} points"


def _interval(drop: Estimate) -> str:
    return f"{_number(drop.low)} .. {_points(drop.high)}"


def _number(share: float) -> str:
    # Rounded first: a zero has no sign.
    return f"{round(100 * share, 2) or 0:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _shares(value: Estimate) -> str:
    return f"{100 * value.low:.1f} .. {_percent(value.high)}"
