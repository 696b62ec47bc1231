"""Is a float cell above its limit because of the conversion, or because of the network?

For every model of `zoo_matrix.py` with such a cell, Keras alone is asked: how far do its logits
move when the kernels are rounded to float16, as a float16 artefact's are, and how far are they from
those that it computes in float64? What Keras itself is off by, no converter can avoid: untrained
weights amplify. The answer is kept in the model's record, and stands in the table's line.

    python benchmarks/zoo_sensitivity.py --images DIR
"""

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import machine
import random_weights
import zoo_table
from kedge_convert.export.exported import half
from kedge_convert.images import collect, tensors
from kedge_convert.prepare.graph import Node
from kedge_convert.prepare.preparation import plan
from kedge_convert.sampling import Sampling
from kedge_convert.toolkit import require
from kedge_models.cards import card
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Input
from kedge_runtime.drift import statistics
from kedge_runtime.files import write_whole
from kedge_runtime.output import quiet

RESULTS = Path(__file__).parent / "results"
Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    images = parser.parse_args().images
    folder = RESULTS / "zoo" / machine.slug()
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        if "keras" in record or not _above(record):
            continue
        record["keras"] = apart(record, images)
        write_whole(path, f"{json.dumps(record, indent=2)}\n".encode())
        print(record["model"], record["keras"], flush=True)
    zoo_table.write(folder, RESULTS / f"zoo-{machine.slug()}")


def _above(record: Record) -> list[str]:
    """Return the float targets whose error is above their limit."""
    return [
        target
        for target, cell in record["cells"].items()
        if (bound := zoo_table.bound(target)) is not None
        and ("parity" not in cell or not zoo_table.error(cell) <= bound)
    ]


def apart(record: Record, images: Path) -> dict[str, float]:
    """Measure in a process of its own, so that one model's memory is gone before the next."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, record, images).result()


def measure(record: Record, images: Path) -> dict[str, float]:
    """Return Keras's own largest logit error, a share of the largest logit, by precision."""
    found = card(record["model"])
    sampling = Sampling(record["calibrate"], record["check"], record["seed"])
    model = random_weights.settled(found, images, sampling)
    graph = plan(model)
    with quiet():
        rounded = graph.with_nodes([_halved(node) for node in graph.nodes]).build()
        double = _in_float64(model)
    spec = Input(found.geometry(), found.normaliser())
    paths = collect(images, sampling).validation
    images = [np.asarray(each) for each in tensors(paths, spec)]
    wanted, halves, exact = (_logits(each, images) for each in (model, rounded, double))
    return {
        "float16": statistics.relative_error(wanted, halves),
        "float32": statistics.relative_error(exact, wanted),
    }


def _logits(model: Any, images: list[Floats]) -> Floats:
    with quiet():
        return np.concatenate([np.asarray(model(each), np.float32) for each in images])


def _halved(node: Node) -> Node:
    # Depthwise kernels stay float32 in a float16 artefact (export/exported.py).
    if node.weights is None or node.weights.kind == "depthwise":
        return node
    rounded = half(node.weights.kernel)
    if rounded is None:
        return node
    return replace(node, weights=replace(node.weights, kernel=rounded.astype(np.float32)))


def _in_float64(model: Any) -> Any:
    """Return the same model, computing in float64."""
    saving = require("keras").saving
    config = json.dumps(saving.serialize_keras_object(model))
    double = saving.deserialize_keras_object(json.loads(config.replace('"float32"', '"float64"')))
    double.set_weights(model.get_weights())
    return double


if __name__ == "__main__":
    main()
