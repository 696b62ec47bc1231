"""How far may ReLU6 channels be scaled, and where is the activations' noise?

For each strength of `kedge_convert.prepare.equalise`: the SQNR of the logits when every activation
has 256 steps and the weights are float, on images that set no range. Then, at the best strength,
each activation alone: the share of the sum of their noise powers.

    python benchmarks/equalisation_strength.py --model FILE.keras --card MobileNet --images DIR
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import machine
from kedge_convert.images import collect, tensors
from kedge_convert.load.request import SourceRequest
from kedge_convert.prepare.equalise import STRENGTHS, measure, scaled
from kedge_convert.prepare.graph import Graph
from kedge_convert.prepare.preparation import plan
from kedge_convert.prepare.running import forget, quantised, run, simulate
from kedge_convert.sampling import Sampling
from kedge_convert.source import load_source
from kedge_runtime.arrays import Floats
from kedge_runtime.drift.statistics import sqnr

RESULTS = Path(__file__).parent / "results"
JUDGES = 32


def main() -> None:
    arguments = _arguments()
    source = load_source(SourceRequest(str(arguments.model), card=arguments.card))
    photos = collect(arguments.images, Sampling())
    images = np.concatenate(list(tensors(photos.calibration, source.input)))
    report = {"machine": machine.identity(), "model": arguments.model.name}
    report |= measured(plan(source.model), images[JUDGES:], images[:JUDGES])
    name = f"equalisation-strength-{arguments.model.stem}-{machine.slug()}"
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    text = _markdown(report)
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


def measured(graph: Graph, fitting: Floats, judging: Floats) -> dict[str, Any]:
    """Return the SQNR in dB by strength, and at the best one each layer's share of noise power."""
    channels, shapes = measure(graph, fitting)
    wanted = simulate(graph, judging, integer=False)
    graphs = {strength: scaled(graph, channels, shapes, strength) for strength in STRENGTHS}
    ratios = {r: sqnr(wanted, simulate(g, judging, integer=True)) for r, g in graphs.items()}
    best = graphs[max(ratios, key=lambda strength: ratios[strength])]
    plain = run_with(best, judging, None)
    powers = {
        i: float(np.square(run_with(best, judging, i) - plain, dtype=np.float64).sum())
        for i in range(len(best.nodes))
    }
    total = sum(powers.values())
    shares = {best.nodes[i].layer.name: power / total for i, power in powers.items() if power}
    return {"sqnr_by_strength": {str(r): round(v, 2) for r, v in ratios.items()}, "shares": shares}


def run_with(graph: Graph, images: Floats, index: int | None) -> Floats:
    """Return the logits with the value of node `index`, if any, held in 256 steps."""
    last, values = graph.last_uses(), {graph.input: images}
    for i, node in enumerate(graph.nodes):
        value = run(node, values)
        values[node.output] = quantised(node, value) if i == index else value
        forget(node, i, last, values)
    return values[graph.output]


def _markdown(report: dict[str, Any]) -> str:
    lines = [
        f"# Activations' noise in {report['model']}",
        "",
        "| strength | SQNR dB |",
        "| --- | --: |",
    ]
    lines += [f"| {strength} | {ratio} |" for strength, ratio in report["sqnr_by_strength"].items()]
    lines += [
        "",
        "| activation alone, at the best strength | share of noise power |",
        "| --- | --: |",
    ]
    lines += [f"| {name} | {share:.3f} |" for name, share in report["shares"].items()]
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--card", required=True)
    parser.add_argument("--images", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
