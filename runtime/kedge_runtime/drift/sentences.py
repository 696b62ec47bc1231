"""Write what a verdict means: the terminal, the page and the tables of a build share it."""

import math

from kedge_runtime import errors
from kedge_runtime.drift.confidence_report import CoverageDrift
from kedge_runtime.drift.gates import Gate, GateName, Holds
from kedge_runtime.drift.report import Accuracy, Drift
from kedge_runtime.drift.statistics import most_unseen, rounded_up
from kedge_runtime.drift.summary import ENOUGH
from kedge_runtime.errors import counted
from kedge_runtime.output import percent

# The limit of `kedge convert` for integer files (kedge_convert.verdict.LIMITS).
CONVERT_AGREEMENT = 0.9


def grouped(count: int) -> str:
    """Write a number in groups, as `7 000`, that no line breaks."""
    return errors.grouped(count).replace(" ", "\N{NO-BREAK SPACE}")


def images(count: int) -> str:
    """Write e.g. `these 7 000 images`."""
    return "this image" if count == 1 else f"these {grouped(count)} images"


def option(name: GateName, limit: float) -> str:
    """Write a gate as an option: `--max-drop 1pp`, `--min-agreement 95%`."""
    unit = "pp" if name == "max_drop" else "%"
    return f"--{name.replace('_', '-')} {round(100 * limit, 6):g}{unit}"


def held(holds: Holds, count: int) -> str:
    """Say which gates so many images pass, the strictest of each kind."""
    limits: dict[GateName, float | None] = {
        "min_agreement": holds.min_agreement,
        "max_drop": holds.max_drop,
    }
    options = [option(name, limit) for name, limit in limits.items() if limit is not None]
    return f"{images(count).capitalize()} can hold {' or '.join(options)}."


def needed(gate: Gate, count: int) -> str:
    """Say how many images besides `count` would decide an open gate."""
    if gate.images_needed is None:
        return "no number of images would decide, as the figure lies too near to the limit"
    more = int(rounded_up(gate.images_needed - count))
    return f"about {grouped(more)} more images would decide (in nine of ten cases)"


def undecided(gate: Gate, count: int) -> str:
    """Say why so many images leave a gate open, and how many more decide it."""
    return (
        f"{images(count).capitalize()} can't decide {option(gate.name, gate.limit)}: the whole "
        f"95 % interval must lie on one side of the limit. {needed(gate, count).capitalize()}."
    )


def chosen(drift: Drift) -> str:
    """Say which gate kedge chose where the user gave none, and why."""
    (gate,) = drift.gates
    given = f"No gate was given, so kedge judges {option(gate.name, gate.limit)}"
    if gate.name == "max_drop":
        return f"{given}: there are {grouped(ENOUGH)} labelled images or more."
    if drift.top1 is None:
        return f"{given}, which needs no labels."
    return f"{given}. {option('max_drop', 0.01)} needs {grouped(ENOUGH)} labelled images or more."


def other_limit(gate: Gate) -> str | None:
    """Explain why `kedge convert` may have passed an artefact that this gate does not."""
    is_between = gate.value.value >= CONVERT_AGREEMENT
    if gate.name != "min_agreement" or gate.verdict == "PASS" or not is_between:
        return None
    return (
        f"kedge convert accepts integer files from {100 * CONVERT_AGREEMENT:.0f} % on, as it has "
        "only a few validation images; this gate is stricter."
    )


def no_flips(count: int) -> str:
    """Say what it means that none of so many images flipped."""
    most = math.ceil(1000 * most_unseen(count)) / 10
    return (
        f"None of {images(count)} flipped, which leaves possible that up to {most:.1f} % of all "
        "images do (exact 95 % bound)."
    )


def split(accuracy: Accuracy) -> str:
    """Say on how many images only one side is right, and how likely chance alone does that."""
    lost, gained = accuracy.pairs.lost, accuracy.pairs.gained
    if not lost + gained:
        return "Both are right on the same images."
    counts = f"Only the reference is right on {counted(lost, 'image')}, only the artefact on"
    if lost == gained:
        return f"{counts} as many."
    chance = percent(accuracy.mcnemar) if accuracy.mcnemar >= 0.001 else "less than 0.1 %"
    return (
        f"{counts} {gained}. If both were equally good, a split at least as uneven would have a "
        f"chance of {chance}."
    )


def calibrated(drift: Drift) -> str | None:
    """Warn that some of the images that measure the artefact were used to make it."""
    fitted = drift.confidence.fitted_images if drift.confidence else 0
    if not (drift.calibration_images or fitted):
        return None
    what = "calibrated the artefact" if drift.calibration_images else "fitted its confidence"
    some = f"{grouped(drift.calibration_images or fitted)} of {images(drift.images)}"
    return f"{some} also {what}, so it may look too good: measure on others"


def expected(coverage: CoverageDrift) -> str:
    """Say how many labels a coverage takes, and what it holds on so many images but for chance."""
    ends = f"expected {100 * coverage.low:.1f} to {percent(coverage.high)}"
    return f"{ends}, {coverage.size:.2f} labels"
