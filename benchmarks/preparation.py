"""How long does preparation take, and how much memory?

Only the weights' preparation, in a process of its own that has loaded the model and read the
images: what `kedge convert` adds to a conversion to int8. Needs keras-kedge[convert].

    python benchmarks/preparation.py --model FILE.keras --card MobileNetV2 --images DIR
"""

import argparse
import json
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import machine
from kedge_convert.images import collect
from kedge_convert.load.request import SourceRequest
from kedge_convert.prepare import preparation
from kedge_convert.quantise import candidates
from kedge_convert.sampling import Sampling
from kedge_convert.source import load_source
from kedge_runtime.output import quiet

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figures:
    """Seconds of each half; `peak`: the most resident bytes of the process, frameworks included."""

    images: int
    equalising: float
    rounding: float
    peak: int

    @property
    def seconds(self) -> float:
        """Of both."""
        return self.equalising + self.rounding


def measure(request: SourceRequest, images: Path, count: int) -> Figures:
    """Prepare once."""
    source = load_source(request)
    photos = collect(images, Sampling(count, 1))
    inputs = candidates.preparation_inputs(source, photos)
    graph = preparation.plan(source.model)
    with quiet():
        start = time.perf_counter()
        equalised = preparation.equalised(graph, inputs)
        middle = time.perf_counter()
        preparation.round_weights(equalised, inputs, preparation.Rounding())
        end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Figures(count, middle - start, end - middle, peak)


def apart(*arguments: Any) -> Figures:
    """Measure in a process of its own, whose memory nothing else has grown."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--card")
    parser.add_argument("--calibrate", type=int, default=Sampling.calibration)
    given = parser.parse_args()
    found = apart(SourceRequest(str(given.model), card=given.card), given.images, given.calibrate)
    report = {"machine": machine.identity(), "model": given.model.name, **asdict(found)}
    name = f"preparation-{given.model.stem}-{machine.slug()}"
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    text = (
        f"# Preparation of {given.model.name}\n\n"
        f"{report['machine']['processor']}, {report['machine']['cores']} cores, "
        f"{found.images} images: {found.seconds:.1f} s ({found.equalising:.1f} s to equalise, "
        f"{found.rounding:.1f} s to round), peak memory {found.peak / 1e9:.2f} GB.\n"
    )
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
