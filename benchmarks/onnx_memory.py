"""How much memory an export to ONNX takes, in a process of its own: the peak of each step.

    python benchmarks/onnx_memory.py --model VGG16 [--route "through TFLite"]

Weights are Keras's own random ones. VGG16 shall take 4 GB at most; TensorFlow's own
conversion takes 5.2 GB (`LARGE` of export/tflite_converter.py).
"""

import argparse
import json
import resource
from pathlib import Path
from typing import Any, NamedTuple

from kedge_convert.export import onnx, onnx_routes, tflite_converter
from kedge_convert.source import Source
from kedge_models.cards import card
from kedge_runtime.artefact.contract import Input, Output
from kedge_runtime.output import quiet
from random_weights import build

UNIT = 1024  # bytes of ru_maxrss on Linux


class Step(NamedTuple):
    """The process's peak after a step, in resident bytes."""

    name: str
    peak: int


def source_of(name: str) -> Source:
    """Return a card's application with random weights as a source."""
    found = card(name)
    given = Input(found.geometry(), found.normaliser())
    return Source(name, build(found), given, Output("logits"), (), "sha256:0")


def measure(name: str, route: str) -> tuple[list[Step], int]:
    """Return the steps to a float32 file by one route alone, or by the choice, and its size."""
    source = source_of(name)
    steps = [Step("Keras model", peak())]
    with quiet():
        tflite_converter.float32(source)
    steps.append(Step("TFLite", peak()))
    if route:
        keep(route)
    content = onnx.export(source, "float32").content
    return [*steps, Step("ONNX", peak())], len(content)


def keep(route: str) -> None:
    """Leave one route to choose from."""
    for other in onnx_routes.ROUTES.keys() - {route}:
        del onnx_routes.ROUTES[other]


def peak() -> int:
    """Return the most resident bytes that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


def main() -> None:
    """Print the peaks as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="VGG16", help="name of a card")
    parser.add_argument("--route", default="", choices=["", *onnx_routes.ROUTES])
    parser.add_argument("--out", type=Path, help="write the JSON there")
    options = parser.parse_args()
    steps, size = measure(options.model, options.route)
    found: dict[str, Any] = {
        "model": options.model,
        "route": options.route,
        "peaks": dict(steps),
        "bytes": size,
    }
    text = json.dumps(found, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
