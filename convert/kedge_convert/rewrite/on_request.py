"""Replace operators that an accelerator does not support, where the user asks for it.

The function stays the same, but not the rounding of its integer file.
"""

from collections.abc import Sequence
from typing import Any

from kedge_convert.rewrite.activations import activation, elementwise
from kedge_convert.rewrite.lowering import ALWAYS, Lowered, LoweringRule, lower
from kedge_runtime.errors import UsageError


def hard_swish(layer: Any) -> Any:
    """Return x * relu6(x + 3) / 6 as two multiplications and an addition, or None.

    Howard et al. 2019, arXiv:1905.02244, section 5.2. TFLite's HARD_SWISH is one operator, which
    the Edge TPU doesn't have.
    """
    if getattr(getattr(layer, "activation", None), "__name__", "") == "hard_silu":
        return activation(layer)
    return elementwise(layer) if type(layer).__name__ == "HardSilu" else None


# Value of --rewrite -> its rules.
REWRITES: dict[str, tuple[LoweringRule, ...]] = {"hard-swish": (hard_swish,)}


def rewrite(model: Any, names: Sequence[str]) -> Lowered:
    """Return a Keras model of the same function, in the operators that all formats have.

    `names`: keys of REWRITES that are applied too. Raises UsageError for an unknown one.
    """
    if unknown := set(names) - REWRITES.keys():
        allowed = ", ".join(REWRITES)
        raise UsageError(f"--rewrite: got {min(unknown)!r}, allowed are {allowed}")
    return lower(model, [*ALWAYS, *(rule for name in names for rule in REWRITES[name])])
