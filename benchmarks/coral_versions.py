"""Which versions of operators do int8 files for Coral have, of all Keras applications?

Coral's compiler of 2021 fails at a whole file where one operator is younger. Versions depend on the
operators, not on weights or sizes: so the weights are random, the images small, and the ranges of
activations are those of one noise image. The file is quantised as `--device coral` does it.

    python benchmarks/coral_versions.py [MODEL...]

Models that the results have already are left out.
"""

import argparse
import json
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import machine
from kedge_convert.export import tflite_converter, tflite_static
from kedge_convert.source import Source
from kedge_convert.targets import scheme_for
from kedge_convert.toolkit import require
from kedge_models.cards import card, cards
from kedge_models.devices import device
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.contract import Geometry, Input, Normalisation, Output
from kedge_runtime.files import write_whole
from kedge_runtime.modelfile.network import read_network
from kedge_runtime.output import quiet

RESULTS = Path(__file__).parent / "results"
CORAL = device("coral")
SCHEME = scheme_for(CORAL)
# Smaller images are refused by Keras, or leave nothing to pool.
SIZE, SIZES = 64, {"Xception": 96, "InceptionV3": 96, "InceptionResNetV2": 96}
CLASSES = 10
Found = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    asked = parser.parse_args().models or list(cards())
    path = RESULTS / f"coral-versions-{machine.slug()}.json"
    found: Found = json.loads(path.read_text()) if path.is_file() else {}
    for name in asked:
        if name not in found:
            found[name] = versions(name)
            write_whole(path, f"{json.dumps(dict(sorted(found.items())), indent=1)}\n".encode())
            print(name, found[name]["younger"] or "none younger", flush=True)


def versions(name: str) -> Found:
    """Return the operators of an application's int8 file by version, and those too young."""
    began, size = perf_counter(), SIZES.get(name, SIZE)
    network = read_network(ModelContent(Path(name), "tflite", quantised(name, size)))
    known = CORAL.newest_versions()
    pairs = sorted({(each.kind, each.version) for each in network.operators})
    return {
        "size": size,
        "operators": dict(pairs),
        "younger": [f"{kind} {version}" for kind, version in pairs if version > known.get(kind, 0)],
        "seconds": round(perf_counter() - began, 1),
    }


def quantised(name: str, size: int) -> bytes:
    """Return the int8 file of an application with random weights."""
    keras = require("keras")
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    with quiet():
        model = getattr(keras.applications, card(name).application)(
            weights=None, input_shape=(size, size, 3), classes=CLASSES, classifier_activation=None
        )
        spec = Input(Geometry(size, size), Normalisation("rgb", 127.5, (1.0, 1.0, 1.0)))
        content = tflite_converter.float32(Source(name, model, spec, Output("logits"), (), ""))
        image = np.random.default_rng(0).uniform(-1, 1, (1, size, size, 3)).astype(np.float32)
        return tflite_static.quantise(
            content, tflite_static.minmax(content, [image]), scheme=SCHEME
        )


if __name__ == "__main__":
    main()
