"""What does a conversion cost, and how exact is what comes out?

Runs `kedge convert --to all` on a Keras model in a process of its own, with its wall time and peak
memory, then holds every artefact against the float original on all pictures of the folder that were
not used for calibration. Writes a table and the figures under results/.

    python benchmarks/conversion.py --model FILE.keras --card MobileNetV2 --images DIR
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import machine
from kedge_convert import parity
from kedge_convert.photos import Sampling, collect, tensors
from kedge_convert.source import Request, load_source
from kedge_convert.targets import TARGETS, Target

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        cost = run(arguments, Path(folder))
        rows = exactness(arguments, Path(folder))
    report = {"machine": machine.identity(), "model": arguments.model.name, **cost, "targets": rows}
    name = f"conversion-{arguments.model.stem}-{machine.slug()}"
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    text = _markdown(report)
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


def run(arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Convert in a child process; return seconds and peak resident memory in GB."""
    command = [
        *(sys.executable, "-m", "kedge_runtime.cli", "convert", str(arguments.model)),
        *("--card", arguments.card, "--calibrate", str(arguments.images), "--out", str(out)),
    ]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"seconds": round(seconds, 1), "peak_gb": round(peak / 1e9, 2)}


def exactness(arguments: argparse.Namespace, out: Path) -> list[dict[str, Any]]:
    """Compare every artefact with the original on all pictures that calibrated none of them."""
    source = load_source(Request(str(arguments.model), card=arguments.card))
    calibrated = set(collect(arguments.images, Sampling()).calibration)
    photos = sorted(p for p in arguments.images.rglob("*") if p.is_file() and p not in calibrated)
    reference = source.logits(tensors(photos, source.input))
    return [_row(target, out, source, photos, reference) for target in TARGETS]


def _row(target: Target, out: Path, source: Any, photos: list[Path], reference: Any) -> Any:
    path = out / target.file_name(source.name)
    measured = parity.compare(reference, parity.answers(path, photos), source.activation)
    return {"target": str(target), "bytes": path.stat().st_size, **asdict(measured)}


def _markdown(report: dict[str, Any]) -> str:
    lines = [
        f"# Conversion of {report['model']} to all targets",
        "",
        f"{report['machine']['processor']}, {report['machine']['cores']} cores: "
        f"{report['seconds']} s with parity on 100 images, peak memory {report['peak_gb']} GB.",
        "",
        "| target | MB | images | top-1 | top-5 | max error | mean error | SQNR dB | KL |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    return "\n".join([*lines, *map(_cells, report["targets"])]) + "\n"


def _cells(row: dict[str, Any]) -> str:
    return (
        f"| {row['target']} | {row['bytes'] / 1e6:.2f} | {row['images']} | {row['top1']:.3f} "
        f"| {row['top5']:.3f} | {row['logit_max_error']:.2g} | {row['logit_mean_error']:.2g} "
        f"| {row['sqnr']:.1f} | {row['kl']:.2g} |"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--card", required=True)
    parser.add_argument("--images", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
