"""TensorFlow's quantiser of 16-bit activations gets a model that it can read and write."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import families
from kedge_convert.export import tflite_converter
from kedge_convert.export.exported import ExportOptions
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.image.preprocessing import Preprocessor, dequantise
from kedge_runtime.output import quiet

HELPERS = Path(__file__).parent / "helpers"
QUANTISED = """
import sys
from hashlib import sha256
from pathlib import Path
import families
from kedge_convert.export import sixteen_bits, tflite_converter
from kedge_convert.export.exported import ExportOptions
source, images = families.source("vgg"), sorted(Path(sys.argv[1]).iterdir())[:2]
floats = tflite_converter.float32(source)
ranges = tflite_converter.ranges(source, ExportOptions(tuple(images)))
for _ in range(3):
    print(sha256(sixteen_bits.quantise_16(floats, ranges, "int16")).hexdigest())
"""


def test_no_freed_memory_is_read(pictures: Path) -> None:
    # glibc overwrites what is freed, so that whoever still reads it fails at once.
    path = os.pathsep.join([str(HELPERS), *sys.path])
    environment = {**os.environ, "MALLOC_PERTURB_": "165", "PYTHONPATH": path}
    command = [sys.executable, "-c", QUANTISED, str(pictures)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.returncode}: {ran.stderr[-500:]}"
    assert len(set(ran.stdout.split())) == 1


def _dead(layers: Any, value: Any) -> Any:
    """Convolutions of every kind, each with outputs of zeros; some of their biases count."""
    value = layers.Conv2D(8, 3, activation="relu", padding="same")(value)
    value = layers.DepthwiseConv2D(3, padding="same")(value)
    value = layers.Conv2DTranspose(6, 3, 2, padding="same")(value)
    return layers.Conv2D(4, 1)(value)


def _idle(layers: Any, value: Any) -> Any:
    """PReLU with Keras's first slopes, zeros, beside biases of zeros of the same size."""
    value = layers.Conv2D(8, 3, strides=2)(value)
    return layers.Conv2D(8, 3)(layers.PReLU(shared_axes=(1, 2))(value))


def _killed(model: Any) -> None:
    """Make every second output of each convolution zeros; three of four have a bias."""
    rng = np.random.default_rng(5)
    for layer in model.layers:
        if "conv" not in layer.name:
            continue
        kernel, bias = layer.get_weights()
        outputs = 2 if layer.name.startswith(("depthwise", "conv2d_transpose")) else 3
        np.moveaxis(kernel, outputs, 0)[::2] = 0
        bias[:] = rng.normal(size=bias.shape)
        bias[::4] = 0
        layer.set_weights([kernel, bias])


@pytest.mark.parametrize("body", [_dead, _idle])
def test_constants_of_zeros_have_a_scale_and_cost_nothing(body: Any, pictures: Path) -> None:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(5)
    image = keras.Input((families.SIDE, families.SIDE, 3))
    value = keras.layers.GlobalAveragePooling2D()(body(keras.layers, image))
    model = keras.Model(image, keras.layers.Dense(5)(value))
    if body is _dead:
        _killed(model)
    source = replace(families.source_of(model), name=body.__name__)
    paths = tuple(sorted(pictures.iterdir())[:9])
    content = tflite_converter.int16x8(source, ExportOptions(paths)).content
    # The engine opens only what kedge finds sound.
    with quiet():
        engine = open_engine(ModelContent(Path("dead.tflite"), "tflite", content))
    plan = Preprocessor(replace(source.input, tensor=engine.input))
    plain = Preprocessor(source.input)
    pixels = [plan.fit(plan.read(path)) for path in paths]
    found = [dequantise(engine.run(plan.look_up(each)), engine.output) for each in pixels]
    expected = source.logits(plain.look_up(each) for each in pixels)
    error = np.abs(np.concatenate(found) - expected).max() / np.abs(expected).max()
    assert error < 0.02
