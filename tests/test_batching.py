"""The float model runs as many images at once as fit, and answers the same for any number."""

from typing import Any

import numpy as np
import pytest

from kedge_convert.batching import MOST, SIZES, batch_size, batches

keras: Any = pytest.importorskip("keras", reason="the converter needs Keras")


def net(side: int, filters: int, batch: int | None = None) -> Any:
    """Return a network whose largest value has `side` x `side` x `filters` numbers."""
    image = keras.Input((side, side, 3), batch_size=batch)
    inner = keras.Sequential([keras.layers.Conv2D(filters, 3, padding="same", activation="relu")])
    value = keras.layers.GlobalAveragePooling2D()(inner(image))
    return keras.Model(image, keras.layers.Dense(4)(value))


@pytest.mark.parametrize(
    ("side", "filters", "wanted"), [(32, 8, 20), (112, 96, 20), (224, 64, 5), (600, 256, 1)]
)
def test_large_values_come_in_small_batches(side: int, filters: int, wanted: int) -> None:
    found = batch_size(net(side, filters))
    assert found == wanted
    assert found == 1 or 4 * found * side * side * filters <= MOST
    assert 20 % found == 0, "the usual numbers of images need one trace alone"
    assert found in SIZES


def test_a_models_own_size_is_kept() -> None:
    assert batch_size(net(600, 256, batch=3)) == 3


def test_a_model_within_a_model_counts() -> None:
    image = keras.Input((224, 224, 3))
    assert batch_size(keras.Model(image, net(224, 64)(image))) == 5


def test_no_image_is_lost_between_batches() -> None:
    images = [np.full((1, 2, 2, 3), i, np.float32) for i in range(7)]
    found = list(batches(images, 3))
    assert [len(each) for each in found] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(images))
