"""Large models are converted without their kernels: the files are those of the usual way."""

import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import families
from kedge_convert import memory
from kedge_convert.convertible import Convertible
from kedge_convert.export import flatbuffer, placeholders, tflite_converter
from kedge_convert.export.exported import Scheme
from kedge_convert.export.tflite_converter import FLOAT, batch_of_one, converted, single
from kedge_convert.images import ImageSplit
from kedge_convert.memory import StoredBytes
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_convert.toolkit import require
from kedge_convert.worker.progress import Progress
from kedge_runtime.output import quiet

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

# TensorFlow's notes on the conversion, which takes the whole file twice more.
NOTES = b"CONVERSION_METADATA"


def repeated(keras: Any, picture: Any) -> Any:
    """Return a layer that is used twice."""
    layers = keras.layers
    value, twice = layers.GlobalAveragePooling2D()(picture), layers.Dense(64)
    return layers.Dense(5)(twice(twice(layers.Dense(64)(value))))


def plain(content: bytes) -> bytes:
    """Return a file without TensorFlow's notes."""
    model = flatbuffer.unpack(content)
    model.metadata = [each for each in model.metadata if each.name != NOTES]
    return flatbuffer.pack(model)


def net(name: str) -> Any:
    """Return a Keras model of batch 1."""
    if name != "repeated":
        return single(families.source(name))
    keras = require("keras")
    picture = keras.Input((32, 32, 3))
    return batch_of_one(keras.Model(picture, repeated(keras, picture)))


@pytest.mark.parametrize("name", [*families.FAMILIES, "repeated"])
def test_a_large_model_s_file_is_the_usual_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = net(name)
    usual = converted(model, FLOAT, name)
    most = model.count_params() - 1
    monkeypatch.setattr(tflite_converter, "LARGE", most)
    monkeypatch.setattr(placeholders, "LEAST", 32)
    made = converted(model, FLOAT, name)
    assert NOTES not in made
    assert made == plain(usual)


def test_a_model_of_changed_kernels_takes_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net("resnet_v2")
    monkeypatch.setattr(placeholders, "LEAST", 32)
    with quiet():
        assert placeholders.convert(require("tensorflow"), model, 0) is None
    usual = converted(model, FLOAT, "resnet_v2")
    monkeypatch.setattr(tflite_converter, "LARGE", 0)
    made = flatbuffer.unpack(converted(model, FLOAT, "resnet_v2"))
    kinds = [name for name, _ in flatbuffer.operators(made)]
    assert kinds == [name for name, _ in flatbuffer.operators(flatbuffer.unpack(usual))]


def test_a_file_is_packed_as_the_library_packs_it() -> None:
    content = converted(net("vgg"), FLOAT, "vgg")
    builder = require("flatbuffers").Builder(1)
    model = flatbuffer.unpack(content)
    builder.Finish(model.Pack(builder), file_identifier=flatbuffer.IDENTIFIER)
    assert bytes(builder.Output()) == flatbuffer.pack(model)


def test_equal_constants_share_the_first_buffer() -> None:
    content = converted(net("vgg"), FLOAT, "vgg")
    model = flatbuffer.unpack(content)
    kernels = [each for each in model.subgraphs[0].tensors if len(flatbuffer.shape(each)) == 4]
    first = next(each for each in kernels if model.buffers[each.buffer].data is not None)
    before, first.buffer = first.buffer, len(model.buffers)
    model.buffers.append(model.buffers[before])
    flatbuffer.share(model)
    assert first.buffer == before


def no_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("file", [tempfile.TemporaryFile, no_disk])
def test_long_bytes_come_back_from_the_disk(
    file: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "LONG", 4)
    monkeypatch.setattr(tempfile, "TemporaryFile", file)
    stored = StoredBytes(b"12345")
    assert [stored.read(), stored.read(), StoredBytes(b"123").read()] == [b"12345"] * 2 + [b"123"]


def wide() -> Source:
    """Return a source of 48 MB, none of whose kernels has more than half of them."""
    keras = require("keras")
    picture = keras.Input((32, 32, 3))
    value = keras.layers.Flatten()(picture)
    for _ in range(3):
        value = keras.layers.Dense(1800)(value)
    return families.source_of(keras.Model(picture, keras.layers.Dense(5)(value)))


def test_kernels_come_back_when_the_placeholders_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels, the file and the builder's copy of it; the placeholders' file was a fourth."""
    monkeypatch.setattr(tflite_converter, "LARGE", placeholders.LEAST)
    model = single(wide())
    tracemalloc.start()
    try:
        content = converted(model, FLOAT, "wide")
        copies = tracemalloc.get_traced_memory()[1] / len(content)
    finally:
        tracemalloc.stop()
    assert NOTES not in content
    assert copies < 3.5


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_an_attempt_holds_no_long_file(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is checked the sealed file is read for the engine, and would be a second copy."""
    monkeypatch.setattr(memory, "LONG", 1)
    model = Convertible(wide(), ImageSplit((), ()), Scheme())
    tracemalloc.start()
    try:
        with Progress(silent=True) as progress:
            attempts = model.attempts(Target(form, "float32"), progress)
            attempt = next(attempts)
        blocks = [trace.size for trace in tracemalloc.take_snapshot().traces]
    finally:
        tracemalloc.stop()
    size = len(attempt.exported.content)
    assert max(blocks) < size
    assert next(attempts, None) is None
