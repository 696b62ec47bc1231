"""Is a float cell above its limit because of the conversion, or because of the network?

For every model of `zoo_matrix.py` with such a cell, Keras alone is asked: how far do the logits
move when the kernels are rounded to float16, as a float16 artefact's are, and when every kernel
moves by one unit in the last place of float32? What Keras itself moves by, no converter can avoid:
untrained weights amplify. The answer is kept in the model's record, and stands in the table's line.

    python benchmarks/zoo_sensitivity.py --images DIR
"""

import argparse
import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import machine
import zoo_table
from kedge_convert.formats.halves import half
from kedge_convert.initialise import initialised
from kedge_convert.photos import Photos, Sampling, collect, tensors
from kedge_convert.prepare import plan
from kedge_convert.prepare.graph import Graph, Node
from kedge_convert.progress import Progress
from kedge_convert.source import Request, load_source
from kedge_convert.toolkit import quiet
from kedge_runtime import metrics
from kedge_runtime.files import write_whole
from kedge_runtime.head import Floats

RESULTS = Path(__file__).parent / "results"
Record = dict[str, Any]
Moved = Callable[[Floats], Floats]


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
        and not zoo_table.error(cell) <= bound
        and "parity" in cell
    ]


def apart(record: Record, images: Path) -> dict[str, float]:
    """Measure in a process of its own, so that one model's memory is gone before the next."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, record, images).result()


def measure(record: Record, images: Path) -> dict[str, float]:
    """Return Keras's own largest logit error, a share of the largest logit, by precision."""
    photos = collect(images, Sampling(record["calibrate"], record["check"], record["seed"]))
    source = load_source(Request(record["model"], weights=record["weights"]))
    with Progress(silent=True) as progress:
        source = initialised(source, photos, record["seed"], progress)
    graph = plan(source.model)
    wanted = _logits(graph, source, photos)
    return {
        precision: metrics.relative_error(wanted, _logits(_moved(graph, moved), source, photos))
        for precision, moved in MOVED.items()
    }


def _logits(graph: Graph, source: Any, photos: Photos) -> Floats:
    with quiet():
        model = graph.build()
        rows = [np.asarray(model(each)) for each in tensors(photos.check, source.input)]
    return np.concatenate(rows)


def _moved(graph: Graph, moved: Moved) -> Graph:
    return graph.with_nodes([_with(node, moved) for node in graph.nodes])


def _with(node: Node, moved: Moved) -> Node:
    # Depthwise kernels stay float32 in a float16 artefact (formats/halves.py).
    if node.weights is None or node.weights.kind == "depthwise":
        return node
    kernel = moved(node.weights.kernel)
    return replace(node, weights=replace(node.weights, kernel=kernel))


def _halved(kernel: Floats) -> Floats:
    rounded = half(kernel)
    return kernel if rounded is None else rounded.astype(np.float32)


def _nudged(kernel: Floats) -> Floats:
    """Move every number by one unit in the last place, up or down, seeded."""
    towards = np.random.default_rng(0).choice([-np.inf, np.inf], kernel.shape)
    return np.nextafter(kernel, towards.astype(np.float32))


MOVED: dict[str, Moved] = {"float16": _halved, "float32": _nudged}


if __name__ == "__main__":
    main()
