"""The label file of a model: as many lines as classes, with or without numbers."""

from pathlib import Path
from typing import Any

import pytest

from kedge_convert.load.request import SourceRequest
from kedge_convert.source import load_source
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError
from kedge_runtime.image.input_options import InputOptions


@pytest.fixture
def request_of(tmp_path: Path) -> Any:
    """Return the request for a model of two classes, with a label file of these lines."""
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    keras = require("keras")
    layers = [keras.layers.Flatten(), keras.layers.Dense(2)]
    keras.Sequential([keras.Input((2, 2, 3)), *layers]).save(tmp_path / "mine.keras")

    def make(lines: str) -> SourceRequest:
        (tmp_path / "labels").write_text(lines)
        mine, labels = str(tmp_path / "mine.keras"), str(tmp_path / "labels")
        return SourceRequest(mine, pixels=InputOptions("imagenet", "raw"), labels=labels)

    return make


def test_numbers_are_left_out_and_told(request_of: Any) -> None:
    source = load_source(request_of("0 cat\n1 dog\n"))
    assert [(label.id, label.name) for label in source.labels] == [("cat", "cat"), ("dog", "dog")]
    assert [note for note in source.notes if note.endswith("the numbers are left out")]


def test_another_number_of_lines_says_what_a_line_is(request_of: Any) -> None:
    with pytest.raises(UsageError, match=r"2 classes, but .*labels has 1 line: a label file has"):
        load_source(request_of("cat, dog"))
