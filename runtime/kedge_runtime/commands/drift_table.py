"""Show a drift in 80 columns: shares in percent, drops in points (reference minus artefact)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import TextWrapper

from kedge_runtime.commands.answers import short
from kedge_runtime.drift.gates import Estimate, Gate, Verdict
from kedge_runtime.drift.report import (
    Accuracy,
    Drift,
    Flip,
    LabelSet,
    MarginBin,
    SideAnswer,
    judged,
    number,
    points,
)
from kedge_runtime.drift.sentences import (
    calibrated,
    chosen,
    expected,
    held,
    no_flips,
    other_limit,
    split,
    undecided,
)
from kedge_runtime.errors import counted
from kedge_runtime.output import page, paint, percent
from kedge_runtime.printable import printable

COLUMNS = 80
COLOURS: dict[Verdict, str] = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}
LISTED = 5
NAME_COLUMNS = 20
DIGITS = 2  # of points: one image of 10 000 is 0.01


def table(drift: Drift) -> str:
    """Return one artefact's figures, flips, classes and gates."""
    lines = [*_head(drift), "", *_figures(drift), "", *_split(drift), *_flips(drift)]
    return page([*lines, *_classes(drift), *_attribution(drift), "", *_verdict(drift)])


def _head(drift: Drift) -> Iterator[str]:
    artefact, latency = drift.artefact, drift.latency
    ratio = "" if artefact.ratio is None else f" ({100 * artefact.ratio:.0f} % of float32)"
    yield artefact.path
    yield from _wrapped(
        f"{artefact.bytes / 1e6:.2f} MB{ratio}, {latency.median_ms:.1f} ms an image "
        f"({artefact.engine}, {counted(artefact.threads, 'thread')}), "
        f"{counted(drift.images, 'image')}"
    )


def _wrapped(text: str) -> list[str]:
    """Break a sentence between words."""
    filled = TextWrapper(
        COLUMNS,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.wrap(printable(text))


def _row(name: str, reference: str = "", artefact: str = "", drop: str = "", rest: str = "") -> str:
    return f"  {name:<17}{reference:>10}{artefact:>10}{drop:>9}   {rest}".rstrip()


def _figures(drift: Drift) -> Iterator[str]:
    yield _row("", "reference", "artefact", "drop", "95 % interval")
    for name, accuracy in (("top-1", drift.top1), ("top-5", drift.top5)):
        if accuracy:
            yield _accuracy(name, accuracy)
    name = "agreement" if drift.agreement_by == "best" else "label agreement"
    for word, value in ((name, drift.agreement), ("in its top-5", drift.agreement_top5)):
        if value:
            interval = f"{number(value.low)} to {percent(value.high)}"
            yield _row(word, "", percent(value.value), "", interval)
    yield from _uncertainty(drift)
    yield from _distances(drift)


def _accuracy(name: str, accuracy: Accuracy) -> str:
    drop = accuracy.drop
    return _row(
        name,
        percent(accuracy.reference),
        percent(accuracy.artefact),
        number(drop.value, DIGITS),
        f"{number(drop.low, DIGITS)} to {points(drop.high, DIGITS)}",
    )


def _uncertainty(drift: Drift) -> Iterator[str]:
    if drift.calibration:
        sides = (drift.calibration.reference.ece, drift.calibration.artefact.ece)
        change = f"change {points(drift.calibration.shift)}"
        yield _row("calibration error", percent(sides[0]), percent(sides[1]), "", change)
    yield from _confidence(drift)
    entropy = drift.entropy
    change = f"change {round(entropy.shift.value, 3) or 0.0:.3f}"
    yield _row("entropy", f"{entropy.reference:.3f}", f"{entropy.artefact:.3f}", "", change)


def _confidence(drift: Drift) -> Iterator[str]:
    if drift.confidence is None:
        return
    if plain := drift.confidence.uncalibrated:
        temperature = f"without temperature {drift.confidence.temperature:g}"
        yield _row("", "", percent(plain.value), "", temperature)
    for coverage in drift.confidence.coverage:
        held = "" if coverage.held is None else percent(coverage.held.value)
        yield _row(f"{percent(coverage.asked, 0)} coverage", "", held, "", expected(coverage))


def _distances(drift: Drift) -> Iterator[str]:
    distances = drift.distances
    yield _row("KL in nats", "", f"{max(0.0, distances.kl):.4f}", "", _scale_of_kl(drift))
    if distances.sqnr is not None:
        cosine = f"cosine {distances.cosine:.4f}"
        yield _row("SQNR in dB", "", f"{distances.sqnr:.1f}", "", cosine)
        yield _row("largest error", "", f"{distances.max_error:.2g}", "", "of a logit")


def _scale_of_kl(drift: Drift) -> str:
    """Return what the KL can be held against: a temperature of its own scales it."""
    temperature = 1.0 if drift.confidence is None else drift.confidence.temperature
    return "good int8: 0.003 to 0.03" if temperature == 1 else f"at temperature {temperature:g}"


def _flips(drift: Drift) -> Iterator[str]:
    flips = drift.flips
    if not flips.count:
        yield from _wrapped(no_flips(drift.images))
        return
    margin = "margin" if drift.agreement_by == "best" else "distance to the nearest threshold"
    yield f"  {counted(flips.count, 'flip')}, by the reference's {margin} (flips/images):"
    yield "  " + "".join(f"{f'{b.low:g}-{b.high:g}':>10}" for b in flips.by_margin)
    yield "  " + "".join(f"{_of(b):>10}" for b in flips.by_margin)
    yield from map(_flip, flips.listed[:LISTED])


def _flip(flip: Flip) -> str:
    """Return a line; what doesn't fit into the columns is shortened."""
    answers = " -> ".join(map(_side, (flip.reference, flip.artefact)))
    room = max(COLUMNS - len(f"    : {answers}"), NAME_COLUMNS)
    return f"    {short(flip.image, room, keep_end=True)}: {answers}"


def _side(side: SideAnswer) -> str:
    if side.best:
        return f"{short(side.best.name, NAME_COLUMNS)} {100 * side.best.probability:.0f} %"
    labels = side.labels or LabelSet(0, ())
    return str(replace(labels, listed=tuple(short(name, NAME_COLUMNS) for name in labels.listed)))


def _of(margin_bin: MarginBin) -> str:
    return f"{margin_bin.flips}/{margin_bin.images}"


def _classes(drift: Drift) -> Iterator[str]:
    per = drift.per_class
    if per is None:
        return
    worst = per.classes[: min(per.drifted, LISTED)]
    names = ", ".join(short(each.name, NAME_COLUMNS) for each in worst)
    yield from _wrapped(
        f"{per.drifted} of {per.tested} classes drifted "
        f"(false discovery rate {100 * per.level:.0f} %){f': {names}' if names else ''}"
    )


def _attribution(drift: Drift) -> Iterator[str]:
    attribution = drift.attribution
    if attribution is None:
        return
    yield ""
    yield f"  drift by step, in points, on {counted(attribution.images, 'image')}:"
    yield f"  {'':<17}{'drop':>8}{'disagree':>10}{'flips':>9}"
    for step in attribution.steps:
        head = _step(step.name, step.drop, step.disagreement)
        yield f"{head}{percent(step.flips):>9}   {step.what}"
    total = _step("total", attribution.drop, attribution.disagreement)
    yield f"{total}{percent(attribution.disagreement):>9}"


def _step(name: str, drop: Estimate | None, disagreement: float) -> str:
    loss = "" if drop is None else number(drop.value, DIGITS)
    return f"  {name:<17}{loss:>8}{number(disagreement, DIGITS):>10}"


def _gate(gate: Gate) -> str:
    verdict = paint(gate.verdict, COLOURS[gate.verdict], bold=True)
    return f"  {verdict}  {judged(gate, DIGITS)}"


def _split(drift: Drift) -> Iterator[str]:
    if drift.top1:
        yield from _wrapped(split(drift.top1))


def _verdict(drift: Drift) -> Iterator[str]:
    yield from map(_gate, drift.gates)
    for sentence in meanings(drift):
        yield from _wrapped(sentence)


def meanings(drift: Drift) -> Iterator[str]:
    """Yield sentences: what is open, what these images can hold, and the default gate."""
    for gate in drift.gates:
        if gate.verdict == "INCONCLUSIVE":
            yield undecided(gate, drift.images)
        if other := other_limit(gate):
            yield other
    if drift.default_gate:
        yield chosen(drift)
    if drift.default_gate or drift.verdict == "INCONCLUSIVE":
        yield held(drift.holds, drift.images)


def notes(drift: Drift, *, table_shown: bool) -> Iterator[str]:
    """Yield a line for each unreadable image, LISTED at most, and for calibration images.

    Without a table, also the sentences on inconclusive gates that stand in it.
    """
    for failure in drift.failed[:LISTED]:
        yield f"{failure.image}: {failure.error}"
    if drift.failed:
        yield f"skipped {counted(len(drift.failed), 'unreadable image')}"
    name = Path(drift.artefact.path).name
    if warning := calibrated(drift):
        yield f"{name}: {warning}"
    if not table_shown:
        open_gates = (gate for gate in drift.gates if gate.verdict == "INCONCLUSIVE")
        yield from (f"{name}: {undecided(gate, drift.images)}" for gate in open_gates)
