"""Models compiled with a loss or an optimiser that only their author has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_convert.load.registry import load
from kedge_convert.load.request import SourceRequest
from kedge_convert.toolkit import require

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

PICTURES = np.random.default_rng(3).uniform(0, 1, (4, 8, 8, 3)).astype(np.float32)


def focal(truth: Any, given: Any) -> Any:
    """Return a loss that Keras doesn't have."""
    return (truth - given) ** 2


def member(k: Any, name: str) -> Any:
    """Return a compiled classifier of 8x8 images."""
    metric = type("Recall3", (k.metrics.Mean,), {"__module__": "training.metrics"})
    layers = k.layers
    model = k.Sequential(
        [k.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3, "softmax")],
        name=name,
    )
    model.compile("adam", focal, [metric(name="recall3")])
    return model


def joined(k: Any) -> Any:
    """Return the average of two that were compiled before."""
    picture = k.Input((8, 8, 3))
    return k.Model(picture, k.layers.Average()([member(k, "a")(picture), member(k, "b")(picture)]))


def whole(model: Any, path: Path) -> None:
    """Save a model in one file."""
    model.save(path)


def parts(model: Any, path: Path) -> None:
    """Save an architecture, and its weights beside it."""
    path.write_text(model.to_json())
    model.save_weights(path.with_name("model.weights.h5"))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
@pytest.mark.parametrize("build", [lambda k: member(k, "alone"), joined], ids=["alone", "nested"])
@pytest.mark.parametrize(
    ("name", "save"), [("model.keras", whole), ("model.h5", whole), ("model.json", parts)]
)
def test_what_only_training_needs_is_left(
    library: str,
    build: Callable[[Any], Any],
    name: str,
    save: Callable[[Any, Path], None],
    tmp_path: Path,
) -> None:
    """`compile=False` doesn't reach nested models, and an architecture knows no such word."""
    model = build(require(library))
    expected = np.asarray(model(PICTURES, training=False))
    save(model, tmp_path / name)
    found = np.asarray(load(SourceRequest(str(tmp_path / name))).model(PICTURES, training=False))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def begun(k: Any, register: Callable[[type], type]) -> Any:
    """Return a classifier whose initialisers, regularisers and constraint are its author's."""

    def own(base: type) -> Any:
        return register(type(f"My{base.__name__}", (base,), {"__module__": "training.mine"}))()

    last = k.layers.Dense(
        3,
        kernel_initializer=own(k.initializers.HeNormal),
        bias_initializer=halves,
        kernel_regularizer=own(k.regularizers.L2),
        activity_regularizer=own(k.regularizers.L1),
        kernel_constraint=own(k.constraints.NonNeg),
    )
    picture = k.Input((8, 8, 3))
    return k.Model(picture, last(k.layers.Flatten()(picture / 255.0)))


def halves(shape: Any, dtype: Any = None) -> Any:
    """Return first weights as a function of the author's own does."""
    return np.full(shape, 0.5, np.float32)


@pytest.mark.filterwarnings("ignore:The `keras.initializers.serialize")
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
@pytest.mark.parametrize("is_registered", [False, True], ids=["unknown", "registered"])
@pytest.mark.parametrize(
    ("name", "save"), [("model.keras", whole), ("model.h5", whole), ("model.json", parts)]
)
def test_what_begins_and_bounds_weights_may_be_the_authors_own(
    library: str,
    is_registered: bool,
    name: str,
    save: Callable[[Any, Path], None],
    tmp_path: Path,
) -> None:
    """It is built for training alone, so that no file is refused for it."""
    k = require(library)
    own = k.saving.register_keras_serializable("mine")
    model = begun(k, own if is_registered else lambda kind: kind)
    save(model, tmp_path / name)
    known = k.saving.get_custom_objects()
    for each in [each for each in known if each.startswith("mine>")]:
        del known[each]
    found = np.asarray(load(SourceRequest(str(tmp_path / name))).model(PICTURES, training=False))
    np.testing.assert_allclose(found, np.asarray(model(PICTURES)), atol=1e-6)
