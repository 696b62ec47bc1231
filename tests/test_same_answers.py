"""The comparison of two versions: renamed keys are one key, and every other difference is seen."""

import json
from typing import Any

import pytest

from same_answers import answer, compare

OLD: dict[str, Any] = {
    "images": "photos",
    "pictures": 12,
    "labels": "auto",
    "calibration": {"original": {"bins": [0.5]}},
    "drifts": [{"gates": [{"images": 2900, "images_as_measured": 74, "said": "a"}], "kl": 0.5}],
}
NEW: dict[str, Any] = {
    "folder": "elsewhere",
    "images": 12,
    "truth": "auto",
    "calibration": {"reference": {"bins": [0.5]}},
    "drifts": [{"gates": [{"images_needed": 2900, "message": "b"}], "kl": 0.5}],
}
CHANGES: dict[str, dict[str, Any]] = {
    "a figure": {"images": 13},
    "a word that decides": {"truth": "none"},
    "a key less": {"drifts": [{"gates": [{"images_needed": 2900}]}]},
    "a key more": {"more": None},
    "a list for a figure": {"drifts": [{"gates": [{"images_needed": 2900}], "kl": [0.5]}]},
}


def test_renamed_keys_and_sentences_are_no_difference() -> None:
    before = answer("drift", 3, json.dumps(OLD), old=True)
    assert compare(before, answer("drift", 3, json.dumps(NEW), old=False)) == ()
    assert before.values == {
        "images": 12,
        "truth": "auto",
        "calibration.reference.bins.0": 0.5,
        "drifts.0.gates.0.images_needed": 2900,
        "drifts.0.kl": 0.5,
    }


@pytest.mark.parametrize("change", CHANGES)
def test_any_other_difference_is_seen(change: str) -> None:
    before = answer("drift", 3, json.dumps(OLD), old=True)
    assert compare(before, answer("drift", 3, json.dumps(NEW | CHANGES[change]), old=False))


def test_an_exit_code_counts() -> None:
    answers = [answer("drift", code, json.dumps(NEW), old=False) for code in (0, 3)]
    assert compare(*answers) == ("exit code: 0 -> 3",)
