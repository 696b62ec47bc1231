"""Models that read an image row by row, as the usual LSTM of MNIST does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_convert.images import tensors
from kedge_convert.job import Job
from kedge_convert.load.registry import load
from kedge_convert.load.request import SourceRequest
from kedge_convert.pipeline import convert
from kedge_convert.sampling import Sampling
from kedge_convert.source import load_source
from kedge_convert.targets import parse_targets
from kedge_convert.toolkit import require
from kedge_convert.verdict import UserLimits
from kedge_convert.worker.progress import Progress
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.errors import UsageError
from kedge_runtime.image.input_options import InputOptions
from kedge_runtime.output import quiet

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

SIDE = 8  # each row is a step, and each step is unrolled
ALLOWED = {"float32": 1e-5, "int8": 0.1}  # of a probability


def rows(*, unroll: bool = False) -> Any:
    """Return a model that reads 8x8 grey images without an axis for channels."""
    keras = require("keras")
    keras.utils.set_random_seed(1)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE)),
            layers.LSTM(8, return_sequences=True, unroll=unroll),
            layers.Bidirectional(layers.GRU(4, unroll=unroll)),
            layers.Dense(3, "softmax", kernel_initializer=keras.initializers.RandomNormal(0, 2)),
        ]
    )


def test_rows_through_an_lstm_and_a_gru(tmp_path: Path, pictures: Path) -> None:
    """A loop is a graph of its own in TFLite, and a GRU has outputs that nothing reads."""
    (model := rows()).save(path := tmp_path / "rows.keras")
    (tmp_path / "labels").write_text("a\nb\nc\n")
    words = InputOptions("load_img", "unit")
    request = SourceRequest(str(path), pixels=words, labels=str(tmp_path / "labels"))
    targets = parse_targets("tflite:float32,tflite:int8,onnx:float32")
    job = Job(
        request,
        targets,
        tmp_path / "out",
        pictures,
        Sampling(20, 15),
        limits=UserLimits(agreement=0.0),
    )
    with Progress(silent=True) as progress:
        outcomes = list(convert(job, progress))
    assert [each.verdict.reasons for each in outcomes] == [()] * 3
    photo = sorted(pictures.iterdir())[0]
    expected = np.asarray(model(next(tensors([photo], load_source(request).input))[..., 0]))[0]
    for outcome in outcomes:
        assert outcome.checked is not None
        found = Classifier.open(outcome.checked.path).probabilities(photo)
        np.testing.assert_allclose(found, expected, atol=ALLOWED[outcome.target.precision])


def test_a_graph_with_a_loop_is_refused_with_a_remedy(tmp_path: Path) -> None:
    """Frozen, a loop's operations lie in frames, which ended in a traceback."""
    with quiet():
        rows().export(tmp_path / "loop")
        (unrolled := rows(unroll=True)).export(tmp_path / "unrolled")
    with pytest.raises(
        UsageError, match=r"has a loop \(.*\), .* give the .keras file, .*unroll=True"
    ):
        load(SourceRequest(str(tmp_path / "loop")))
    images = np.random.default_rng(2).uniform(0, 1, (3, SIDE, SIDE)).astype(np.float32)
    found = load(SourceRequest(str(tmp_path / "unrolled"))).model(images[..., None], training=False)
    np.testing.assert_allclose(found, unrolled(images), atol=1e-5)


def test_a_cell_of_the_authors_own_is_named(tmp_path: Path) -> None:
    """tf_keras's own line advises a decorator, which helps nobody here."""
    tf_keras = require("tf_keras")

    class Cell(tf_keras.layers.SimpleRNNCell):  # type: ignore[misc,name-defined]
        """Nothing new but its name."""

    layers = [tf_keras.Input((SIDE, SIDE)), tf_keras.layers.RNN(Cell(4)), tf_keras.layers.Dense(3)]
    tf_keras.Sequential(layers).save(path := tmp_path / "cell.keras")
    with pytest.raises(
        UsageError, match=r"needs the (type|class) 'Cell' of its author's own"
    ) as caught:
        load(SourceRequest(str(path)))
    assert "register" not in str(caught.value)
