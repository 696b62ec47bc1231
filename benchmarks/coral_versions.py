"""Which versions of operators do int8 files for Coral have, of all Keras applications?

Coral's compiler of 2021 fails at a whole file where one operator is younger. Versions depend on the
operators, not on weights or sizes: so the weights are random, the images small, and the ranges of
activations are those of one noise image. The file is quantised as `--device coral` does it.

    python benchmarks/coral_versions.py [--only MODEL...] [--seconds 900] [--minutes 60]

Each application has a process of its own, the smallest first. Its row is written as soon as it
ends. `--seconds` is the most that one takes, `--minutes` that all take together: an application
that needs more gets a row that says so. A later run leaves out what was checked, and tries the
others again.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
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
LEAST = 60.0  # seconds; with less left no application is begun
HERE = "--here"  # the option of the process that checks one application
Row = dict[str, Any]


def main() -> None:
    arguments = _arguments()
    if arguments.here:
        print(json.dumps(versions(arguments.here)))
        return
    path, began = RESULTS / f"coral-versions-{machine.slug()}.json", perf_counter()
    rows: dict[str, Row] = json.loads(path.read_text()) if path.is_file() else {}
    for name in _unchecked(arguments.only or list(cards()), rows):
        left = arguments.minutes * 60 - (perf_counter() - began)
        if left < LEAST and name in rows:
            continue  # it says why already
        rows[name] = _row(name, min(left, arguments.seconds))
        write_whole(path, f"{json.dumps(dict(sorted(rows.items())), indent=1)}\n".encode())
        print(f"{name}: {_said(rows[name])}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="MODEL")
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument(HERE, metavar="MODEL", help=argparse.SUPPRESS)
    return parser.parse_args()


def _unchecked(names: Sequence[str], rows: dict[str, Row]) -> list[str]:
    """Return the applications that no row has the operators of, the smallest first."""
    missing = [name for name in names if "operators" not in rows.get(name, {})]
    return sorted(missing, key=lambda name: card(name).parameters)


def _row(name: str, seconds: float) -> Row:
    """Return an application's row, found by a process of its own in so many seconds at most."""
    if seconds < LEAST:
        return {"unchecked": "no time was left"}
    try:
        ran = subprocess.run(
            [sys.executable, __file__, HERE, name],
            capture_output=True,
            check=False,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return {"unchecked": f"took more than {seconds:.0f} s"}
    if ran.returncode:
        return {"unchecked": f"ended with {ran.returncode}: {' '.join(ran.stderr.split())[-200:]}"}
    row: Row = json.loads(ran.stdout.splitlines()[-1])
    return row


def _said(row: Row) -> str:
    return str(row.get("unchecked") or row["younger"] or "none younger")


def versions(name: str) -> Row:
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
