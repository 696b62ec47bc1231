"""The reference of the Python API is current, and every docstring has the same style."""

import inspect
from typing import Any

import pytest

import kedge_runtime
from api_reference import METHODS, PAGE, members, parse, reference
from kedge_runtime import KedgeError

FUNCTIONS = [pytest.param(it, id=name) for name, it in members() if not inspect.isclass(it)]
CLASSES = [pytest.param(it, id=name) for name, it in members() if inspect.isclass(it)]
# Serve the commands and the tools; docs/api.md doesn't name them.
INTERNAL = {
    *("of", "run", "read", "numbers", "outputs", "prepared", "prepared_pixels"),
    *("prepared_features", "prepared_result"),
    *("check_answers", "check_features"),
    *("prepared", "prepared_features", "prepared_pixels", "prepared_result"),
    *("probabilities_in", "counts", "summary"),
}


def test_the_reference_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run `make api`"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_docstring_explains_every_argument_and_no_other(function: Any) -> None:
    names = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
    docstring = parse(function)
    assert list(docstring.items("Args")) == names
    assert docstring.text.splitlines()[0].endswith(".")
    returns = inspect.signature(function).return_annotation
    is_property = function.__name__ == "label"
    if returns not in (None, "None") and not is_property:
        assert "Returns" in docstring.sections or "Yields" in docstring.sections


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_a_docstring_raises_is_public(function: Any) -> None:
    raised = parse(function).items("Raises")
    assert all(issubclass(getattr(kedge_runtime, name), KedgeError) for name in raised)


@pytest.mark.parametrize("record", CLASSES)
def test_a_docstring_explains_every_field(record: Any) -> None:
    fields = list(getattr(record, "__dataclass_fields__", ()))
    explained = list(parse(record).items("Attributes"))
    assert not fields or explained == fields


@pytest.mark.parametrize("name", METHODS)
def test_no_public_method_is_left_out(name: str) -> None:
    found = inspect.getmembers(getattr(kedge_runtime, name), callable)
    methods = {method for method, _ in found if not method.startswith("_")}
    inherited = {"each"} if name in ("Ensemble", "SecondOpinion") else set()
    assert methods - INTERNAL - inherited <= set(METHODS[name])
