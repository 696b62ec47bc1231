"""What `from kedge_runtime import ...` gives: this list, and everything on it."""

import ast
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

import kedge_runtime
from kedge_runtime import Prediction, Result

PUBLIC = [
    "ArtefactError",
    "Classifier",
    "Contract",
    "ContractError",
    "EngineError",
    "Ensemble",
    "ImageError",
    "KedgeError",
    "Prediction",
    "Result",
    "Rule",
    "SecondOpinion",
    "UsageError",
    "preprocess",
    "read_contract",
]


def test_the_public_list_is_this_one() -> None:
    assert kedge_runtime.__all__ == PUBLIC
    assert sorted(kedge_runtime._HOMES) == PUBLIC


def test_a_type_checker_sees_the_same_list() -> None:
    tree = ast.parse(Path(kedge_runtime.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    homes = {
        alias.name: (node.module or "").removeprefix("kedge_runtime.")
        for node in imports
        for alias in node.names
        if (node.module or "").startswith("kedge_runtime.")
    }
    assert homes == kedge_runtime._HOMES


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(kedge_runtime, name).__doc__
    documented = (Path(__file__).parent.parent / "docs" / "api.md").read_text()
    assert f"`{name}" in documented or f"import {name}" in documented or f", {name}" in documented


def test_no_module_hides_a_public_name() -> None:
    # Importing a submodule binds its name in the package, over what __getattr__ would give.
    assert not set(PUBLIC) & {path.stem for path in Path(kedge_runtime.__file__).parent.iterdir()}


def test_what_is_not_public_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Classifer'"):
        _ = kedge_runtime.Classifer


def test_answers_are_frozen() -> None:
    best = Prediction(0, "a", "b", 0.5)
    result = Result(best, (best,), 0.1, 0.2)
    with pytest.raises(FrozenInstanceError):
        best.probability = 1.0  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        result.unknown = True  # type: ignore[misc]
    assert hash(result) == hash(Result(best, (best,), 0.1, 0.2))
