"""Merges at a classifier's end: what comes of several heads when they are joined."""

from collections.abc import Set
from typing import Any

from kedge_convert.toolkit import require
from kedge_runtime.contract import Kind

# A sigmoid is taken of each number and grows with it: whether it comes first or last is the same.
_COMMUTING = frozenset({"Concatenate", "Maximum", "Minimum"})
# These give probabilities of probabilities, and no logits of logits.
_BLENDING = frozenset({"Average", "Multiply"})
_OTHERS = frozenset({"Add", "Dot", "Subtract"})
MERGES = _COMMUTING | _BLENDING | _OTHERS


def merged_kind(merge: str, kinds: Set[Kind | None]) -> Kind | None:
    """Return what a merge of branches of these kinds gives; None where the layers can't tell."""
    if kinds == {"features"}:
        return "features"
    if kinds <= {"logits", "features"}:
        return "logits"
    if kinds == {"sigmoid"} and merge in _COMMUTING | _BLENDING:
        return "sigmoid"
    # A mean of distributions is one; their largest, their product and their row are none.
    return "softmax" if kinds == {"softmax"} and merge == "Average" else None


def commutes(last: Any, kind: Kind | None) -> bool:
    """Whether the same merge of the branches' logits gives the logits of the whole."""
    layer = isinstance(last, require("keras").layers.Layer)
    return layer and kind == "sigmoid" and type(last).__name__ in _COMMUTING
