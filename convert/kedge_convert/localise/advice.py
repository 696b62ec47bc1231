"""What to do about a layer: the first rule whose bounds the measured facts keep. Data, not code.

Each advice states the figure that it follows from. Where a bound comes from stands beside it.
"""

from dataclasses import dataclass, field
from typing import Any

from kedge_runtime.contract import Method

# Noise of a thousandth of the signal: several such layers in a row don't change an answer.
FINE = 30.0
# Rounding to the tensor's own steps explains the noise if it makes a quarter of it or more.
EXPLAINED = 6.0
# Values beyond the range of more than one in two hundred cost more than their finer steps bring.
CLIPPED = 0.005
# A channel with an eighth of the range has five bits left of eight.
NARROW = 8.0
# A normal distribution's largest of ten thousand values is four times its RMS, of ReLU's half of
# one about six: a peak beyond twelve is an outlier.
OUTLIER = 12.0

SEARCH = "`kedge convert ... --min-agreement .98` searches which layers to keep in float"

# The file doesn't say which it was.
STOCK = "(prepared ones weren't nearer, couldn't be made, or --no-prepare was given): "


@dataclass(frozen=True)
class Rule:
    """`bounds`: fact -> (least, most), both included; `kinds`: Keras classes, empty for any;
    `method`: of the file's preparation, None for any. `says` is filled in from the facts.
    """

    says: str
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    kinds: frozenset[str] = frozenset()
    method: Method | None = None

    def holds(self, facts: dict[str, Any]) -> bool:
        """Whether the facts keep every bound."""
        return (
            all(low <= facts[name] <= high for name, (low, high) in self.bounds.items())
            and (not self.kinds or facts["kind"] in self.kinds)
            and self.method in (None, facts["method"])
        )


MANY = float("inf")
GATES = frozenset({"Multiply", "Activation", "HardSilu", "Silu"})
# More noise than integer activations explain, in a layer with an integer kernel.
WEIGHTS: dict[str, tuple[float, float]] = {
    "excess": (EXPLAINED, MANY),
    "kernel_scales": (1, MANY),
    "quantised": (1, 1),
}

RULES = (
    Rule("", {"own_sqnr": (FINE, MANY)}),
    Rule(
        "{clipped:.1%} of its values are cut off, as preparation enlarged channels up to "
        "{factor:.1f} times: compare with --no-prepare",
        {"clipped": (CLIPPED, 1), "factor": (1.05, MANY)},
    ),
    Rule(
        "{clipped:.1%} of its values lie beyond its range: calibrate with more varied pictures "
        "(--calibrate DIR, --calibrate-count N)",
        {"clipped": (CLIPPED, 1)},
    ),
    Rule(
        "{excess:.0f} dB more noise than its steps make, and its kernel has one scale for all "
        "channels: convert with kedge, which gives each its own",
        {**WEIGHTS, "kernel_scales": (1, 1), "channels": (2, MANY)},
    ),
    Rule(
        "{excess:.0f} dB more noise than its steps make, from its weights, which are stock ones "
        + STOCK
        + SEARCH,
        WEIGHTS,
        method="stock",
    ),
    Rule(
        "{excess:.0f} dB more noise than its steps make, although its weights were prepared: "
        + SEARCH,
        WEIGHTS,
    ),
    Rule(
        "a gate of {own_sqnr:.0f} dB, whose product of two roundings no range mends: " + SEARCH,
        kinds=GATES,
    ),
    Rule(
        "its largest channel has {spread:.0f} times the range of the median one, and its weights "
        "are stock ones " + STOCK + SEARCH,
        {"spread": (NARROW, MANY)},
        method="stock",
    ),
    Rule(
        "its peak is {crest:.0f} times its root mean square, so that few steps are left for the "
        "rest: calibrate with pictures like the real ones, or " + SEARCH,
        {"crest": (OUTLIER, MANY)},
    ),
    Rule("its 8-bit steps alone leave {floor:.0f} dB: " + SEARCH, {"floor": (-MANY, FINE + 6)}),
    Rule("{own_sqnr:.0f} dB of its own: " + SEARCH),
)


def advice(facts: dict[str, Any]) -> str:
    """Return what to do, or nothing where nothing needs to be done.

    `facts`: those of a LayerDrift by name, `method`, and `excess`: by how many dB its own noise
    exceeds that of its steps.
    """
    rule = next(rule for rule in RULES if rule.holds(facts))
    return rule.says.format(**facts)
