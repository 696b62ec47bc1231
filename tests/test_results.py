"""From probabilities to an answer: what is named, what counts, and what is unknown."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_runtime.artefact.contract import Label, Output
from kedge_runtime.classify.results import Classes, Prediction, Result, Rule, disagree
from kedge_runtime.errors import ContractError, UsageError

LABELS = tuple(Label(f"id{i}", f"name {i}") for i in range(4))
EXCLUSIVE = Classes.of(LABELS, Output())


def _floats(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def _indices(result: Result) -> list[int]:
    return [prediction.index for prediction in result.predictions]


def test_an_answer_says_how_sure_it_is() -> None:
    result = EXCLUSIVE.result(_floats(0.25, 0.5, 0.25, 0.0), top=3)
    assert _indices(result) == [1, 0, 2]
    assert result.best == result.predictions[0] == Prediction(1, "id1", "name 1", 0.5)
    assert result.margin == 0.25
    assert result.entropy == pytest.approx(0.75)
    assert (result.unknown, result.label) == (False, "name 1")


def test_an_answer_is_plain_python() -> None:
    result = EXCLUSIVE.result(_floats(0.25, 0.5, 0.25, 0.0))
    for value in (result.best.probability, result.margin, result.entropy):
        assert type(value) is float
    assert type(result.best.index) is int
    assert type(result.unknown) is bool


def test_the_margin_needs_no_second_answer_and_one_class_has_none() -> None:
    assert EXCLUSIVE.result(_floats(0.25, 0.5, 0.25, 0.0), top=1).margin == 0.25
    assert EXCLUSIVE.result(_floats(0.4, 0.4, 0.1, 0.1)).margin == 0
    assert Classes.of(LABELS[:1], Output()).result(_floats(1.0)).margin == 1


# Of .5, .25, .25, 0: best .5, entropy .75.
RULES = [
    (Rule(), False),
    (Rule(min_confidence=0.5), False),
    (Rule(min_confidence=0.51), True),
    (Rule(max_entropy=0.76), False),
    (Rule(max_entropy=0.74), True),
    (Rule(min_confidence=0.4, max_entropy=0.74), True),
]


@pytest.mark.parametrize(("rule", "unknown"), RULES)
def test_what_misses_the_rule_is_unknown(rule: Rule, unknown: bool) -> None:
    result = EXCLUSIVE.result(_floats(0.25, 0.5, 0.25, 0.0), rule=rule)
    assert result.unknown is unknown
    assert result.label == (None if unknown else "name 1")
    assert result.best.name == "name 1"
    assert len(result.predictions) == 4


# Thresholds of the contract, of the caller, and the classes of .7, .2, .9, .5 that reach them.
THRESHOLDS: list[tuple[tuple[float, ...], float | None, list[int]]] = [
    ((), None, [2, 0, 3]),
    ((0.6,), None, [2, 0]),
    ((0.7,), None, [2, 0]),  # at it counts
    ((0.8, 0.1, 0.95, 0.5), None, [3, 1]),
    ((0.8, 0.1, 0.95, 0.5), 0.0, [2, 0, 3, 1]),
    ((), 0.95, []),
]


@pytest.mark.parametrize(("thresholds", "override", "expected"), THRESHOLDS)
@pytest.mark.parametrize("kind", ["sigmoid", "logits"])
def test_of_independent_classes_all_that_reach_their_threshold_are_the_answer(
    thresholds: tuple[float, ...], override: float | None, expected: list[int], kind: str
) -> None:
    output = Output(kind, activation="sigmoid", thresholds=thresholds)  # type: ignore[arg-type]
    result = Classes.of(LABELS, output).result(
        _floats(0.7, 0.2, 0.9, 0.5), top=1, rule=Rule(threshold=override)
    )
    assert _indices(result) == expected
    assert result.unknown is (expected == [])
    assert result.best.index == 2


def test_independent_classes_in_a_tie_keep_their_order() -> None:
    classes = Classes.of(LABELS, Output("sigmoid"))
    assert _indices(classes.result(_floats(0.6, 0.9, 0.6, 0.9))) == [1, 3, 0, 2]


def test_thresholds_mean_nothing_to_exclusive_classes() -> None:
    classes = Classes.of(LABELS, Output(thresholds=(0.9,)))
    assert _indices(classes.result(_floats(0.25, 0.5, 0.25, 0.0), top=2)) == [1, 0]


def test_the_background_is_a_class_before_the_labels() -> None:
    classes = Classes.of(LABELS, Output("softmax", label_offset=1))
    result = classes.result(_floats(0.25, 0.125, 0.5, 0.0625, 0.0625), top=2)
    assert result.predictions == (
        Prediction(1, "id1", "name 1", 0.5),
        Prediction(-1, "background", "background", 0.25),
    )


def test_a_threshold_per_label_leaves_the_background_its_own() -> None:
    output = Output("sigmoid", label_offset=1, thresholds=(0.1, 0.9, 0.9, 0.9))
    assert _indices(Classes.of(LABELS, output).result(_floats(0.6, 0.2, 0.6, 0.6, 0.6))) == [-1, 0]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_thresholds_for_other_classes_are_refused(count: int) -> None:
    with pytest.raises(ContractError, match=f"{count} thresholds for 4 labels"):
        Classes.of(LABELS, Output("sigmoid", thresholds=(0.5,) * count))


@pytest.mark.parametrize("name", ["min_confidence", "max_entropy", "threshold"])
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_a_rule_outside_its_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{name} is .*allowed are 0 to 1"):
        Rule(**{name: value})


DISAGREEMENTS = [
    (["black_stork", "black stork, Ciconia nigra"], False),
    (["Tench", "tench"], False),
    (["tench", "goldfish"], True),
    (["tench", "tench", None], True),
    ([None, None], False),
]


@pytest.mark.parametrize(("labels", "expected"), DISAGREEMENTS)
def test_models_agree_when_they_say_the_same_thing(
    labels: list[str | None], expected: bool
) -> None:
    results = []
    for label in labels:
        best = Prediction(0, "", label or "whatever", 0.5)
        results.append(Result(best, (best,), 0.1, 0.1, unknown=label is None))
    assert disagree(results) is expected
