"""Values in batches are the whole value's, bit for bit, and go while a node runs."""

import numpy as np
import pytest

import nets
from kedge_convert.prepare import batches, running
from kedge_convert.prepare.batches import Batches
from kedge_convert.prepare.preparation import plan
from kedge_convert.prepare.running import CHUNK
from kedge_runtime.arrays import Floats

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")


def values(count: int) -> Floats:
    """Return seeded values of so many images, of very different sizes."""
    rng = np.random.default_rng(0)
    return np.exp(rng.normal(0, 3, (count, 7, 6, 5))).astype(np.float32)


@pytest.mark.parametrize("count", [1, CHUNK, CHUNK + 1, 3 * CHUNK - 1])
def test_batches_answer_as_the_whole_value_does(count: int) -> None:
    whole = values(count)
    split = Batches.of(whole)
    assert (len(split), split.shape) == (count, whole.shape)
    np.testing.assert_array_equal(split.mean(), whole.mean(axis=0, keepdims=True))
    np.testing.assert_array_equal(split.rows(), whole.reshape(-1, 5))
    at = np.array([0, 6, 3]), np.array([5, 0, 3])
    np.testing.assert_array_equal(split.at(*at), whole[:, at[0], at[1]])


@pytest.mark.parametrize("count", [0, 6, CHUNK, CHUNK + 5])
def test_the_first_images_and_the_others(count: int) -> None:
    whole = values(2 * CHUNK + 3)
    split = Batches.of(whole)
    np.testing.assert_array_equal(split.after(count).rows(), whole[count:].reshape(-1, 5))
    if count:
        np.testing.assert_array_equal(split.before(count).rows(), whole[:count].reshape(-1, 5))


def test_all_batches_have_the_same_steps() -> None:
    whole = values(2 * CHUNK) * np.float32(0.1) - np.float32(1)
    node = next(each for each in plan(nets.make("mobile")).nodes if each.weights is not None)
    held = batches.quantised(node, Batches.of(whole))
    np.testing.assert_array_equal(held.rows(), running.quantised(node, whole.copy()).reshape(-1, 5))


def test_what_a_node_has_used_up_is_freed() -> None:
    pictures = nets.pictures(CHUNK + 2)
    traced = plan(nets.make("mobile"))
    node = traced.nodes[0]
    wanted = running.run(node, {traced.input: pictures})
    kept, freed = Batches.of(pictures), Batches.of(pictures)
    for split, spent in ((kept, ()), (freed, (traced.input,))):
        found = batches.run(node, {traced.input: split}, spent)
        np.testing.assert_array_equal(np.concatenate(found.arrays), wanted)
    assert [each.size for each in freed.arrays] == [0, 0]
    np.testing.assert_array_equal(np.concatenate(kept.arrays), pictures)
