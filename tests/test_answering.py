"""A source's float program answers as its Keras model does, which takes its place where needed."""

from pathlib import Path

import numpy as np
import pytest

import families
from kedge_convert.export import tflite_converter
from kedge_convert.images import tensors
from kedge_convert.program import answering
from kedge_convert.source import Source
from kedge_convert.toolkit import ConversionError
from kedge_runtime.engines import choice
from kedge_runtime.errors import EngineError


@pytest.mark.parametrize("family", families.FAMILIES)
def test_answers_are_those_of_the_keras_model(family: str, pictures: Path) -> None:
    source, images = families.source(family), sorted(pictures.iterdir())[:30]
    ours = answering.logits(source, tensors(images, source.input))
    theirs = source.logits(tensors(images, source.input))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


def _asked_of_keras(source: Source, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    images, asked = sorted(pictures.iterdir())[:3], list[int]()
    logits = Source.logits

    def noting(self: Source, *given: object) -> object:
        asked.append(1)
        return logits(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Source, "logits", noting)
    found = answering.logits(source, tensors(images, source.input))
    assert np.array_equal(found, logits(source, tensors(images, source.input))) or not asked
    return bool(asked)


def test_the_keras_model_is_left_alone(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not _asked_of_keras(families.source("vgg"), pictures, monkeypatch)


def test_the_keras_model_answers_where_there_is_no_program(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Source) -> bytes:
        raise ConversionError("an operator that TFLite lacks")

    monkeypatch.setattr(tflite_converter, "float32", refuse)
    assert _asked_of_keras(families.source("vgg"), pictures, monkeypatch)


def test_the_keras_model_answers_where_the_engine_refuses(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> object:
        raise EngineError("refused")

    monkeypatch.setattr(choice, "_open", refuse)
    assert _asked_of_keras(families.source("vgg"), pictures, monkeypatch)
