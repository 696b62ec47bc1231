"""Versions of operators: Coral's compiler of 2021 reads none that TFLite 2.5 didn't have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_convert.device.fit import fit
from kedge_convert.export import tflite_converter, tflite_static
from kedge_convert.source import Source
from kedge_convert.targets import scheme_for
from kedge_convert.toolkit import require
from kedge_models.devices import device
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Geometry, Input, Normalisation, Output
from kedge_runtime.checks.hardware import Finding
from kedge_runtime.modelfile.network import read_network
from kedge_runtime.modelfile.report import inspect
from kedge_runtime.output import quiet

CORAL = device("coral")
SIDES = (24, 24, 8)


def test_the_table_has_what_real_compilers_took(shared: Path) -> None:
    """Files that Coral's compiler compiled, and what it left in them."""
    files = sorted((shared / "data" / "edgetpu").glob("*.tflite"))
    operators = [each for path in files for each in read_network(read_content(path)).operators]
    known = CORAL.newest_versions()
    beyond = {
        (each.kind, each.version)
        for each in operators
        if each.kind != "edgetpu-custom-op" and each.version > known.get(each.kind, 0)
    }
    assert (beyond, len({each.kind for each in operators}) > 20) == (set(), True)


# What its users report that compiler 16.0.384591198 could not parse: google-coral/edgetpu, issues
# 631, 845 and 879; google-coral/libedgetpu, issue 71.
REFUSED = {"CONV_2D": 6, "TRANSPOSE_CONV": 4, "QUANTIZE": 3, "EXP": 2}


@pytest.mark.parametrize("kind", REFUSED)
def test_the_table_ends_where_the_real_compiler_ends(kind: str) -> None:
    assert CORAL.newest_versions()[kind] == REFUSED[kind] - 1


def test_every_operator_of_the_list_has_a_version() -> None:
    assert set(CORAL.operators["tflite"]) <= CORAL.newest_versions().keys()


def separable(keras: Any, image: Any) -> Any:
    value = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(image)
    value = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization()(value))
    return keras.layers.Add()([keras.layers.Conv2D(8, 1)(value), image])


def squeezed(keras: Any, image: Any) -> Any:
    value = keras.layers.Conv2D(8, 3, padding="same", activation="swish")(image)
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True)(value)
    gate = keras.layers.Conv2D(8, 1, activation="sigmoid")(gate)
    return keras.layers.Multiply()([value, gate])


def dense(keras: Any, image: Any) -> Any:
    value = keras.layers.Conv2D(8, 3, dilation_rate=2, padding="same", activation="relu")(image)
    pooled = [
        keras.layers.AveragePooling2D(3, 1, padding="same")(image),
        keras.layers.MaxPooling2D(3, 1, padding="same")(value),
    ]
    value = keras.layers.Concatenate()([value, *pooled])
    return keras.layers.ZeroPadding2D()(value)


def repeated(keras: Any, image: Any) -> Any:
    return keras.layers.UpSampling2D()(keras.layers.Conv2D(8, 3)(image))


def transposed(keras: Any, image: Any) -> Any:
    return keras.layers.Conv2DTranspose(8, 3, strides=2, activation="relu")(image)


def grouped(keras: Any, image: Any) -> Any:
    return keras.layers.Conv2D(16, 3, groups=4, activation="relu")(image)


def gelu(keras: Any, image: Any) -> Any:
    return keras.layers.Conv2D(8, 3, activation="gelu")(image)


def version_finding(build: Callable[[Any, Any], Any], folder: Path) -> Finding:
    """Return what is said of the versions in a net's int8 file, made as --device coral does it."""
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    keras = require("keras")
    keras.utils.set_random_seed(2)
    image = keras.Input(SIDES)
    value = keras.layers.GlobalAveragePooling2D()(build(keras, image))
    model = keras.Model(image, keras.layers.Dense(5)(value))
    spec = Input(Geometry(*SIDES[:2]), Normalisation(divisor=255.0))
    noise = np.random.default_rng(0).uniform(0, 1, (1, *SIDES)).astype(np.float32)
    with quiet():
        content = tflite_converter.float32(Source("net", model, spec, Output("logits"), (), ""))
        ranges = tflite_static.minmax(content, [noise])
        path = folder / "net.tflite"
        path.write_bytes(tflite_static.quantise(content, ranges, scheme=scheme_for(CORAL)))
    return fit(inspect(path), CORAL).findings["versions"]


@pytest.mark.parametrize("build", [separable, squeezed, dense, transposed])
def test_plain_blocks_have_versions_that_the_compiler_reads(
    build: Callable[[Any, Any], Any], tmp_path: Path
) -> None:
    found = version_finding(build, tmp_path)
    assert (found.state, found.detail) == ("ok", "no operator is younger than the compiler")


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (grouped, "CONV_2D has version 6, the compiler knows up to version 5"),
        (gelu, "GELU has version 2, the compiler doesn't know it"),
        (repeated, "TILE has version 3, the compiler knows up to version 2"),
    ],
)
def test_a_younger_operator_is_named_with_its_version(
    build: Callable[[Any, Any], Any], tmp_path: Path, said: str
) -> None:
    found = version_finding(build, tmp_path)
    assert (found.state, found.detail) == ("problem", said)
    assert found.fix
