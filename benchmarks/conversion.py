"""What does a conversion cost, and how exact is what comes out?

Runs `kedge convert` on a Keras model, with its wall time and the peak memory of the command and of
its worker, then holds every artefact against the float original on all images of the folder that
were not used for calibration. With random weights (`--weights none`) the conversion's own parity
stands instead. Writes a table and the figures under results/.

    python benchmarks/conversion.py --model FILE.keras --card MobileNetV2 --images DIR
    python benchmarks/conversion.py --model VGG16 --weights none --images DIR --to tflite:float16
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import machine
import peak
import random_weights
from kedge_convert import parity
from kedge_convert.images import collect, tensors
from kedge_convert.load.request import SourceRequest
from kedge_convert.sampling import Sampling
from kedge_convert.source import load_source
from kedge_convert.targets import Target, parse_targets
from kedge_runtime.artefact.content import read_content

RESULTS = Path(__file__).parent / "results"
Rows = list[dict[str, Any]]


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        cost, rows = run(arguments, Path(folder))
        if arguments.weights != random_weights.NONE:
            rows = exactness(arguments, Path(folder) / "out")
    report = {
        "machine": machine.identity(),
        "model": Path(arguments.model).name,
        **cost,
        "targets": rows,
    }
    name = f"conversion-{Path(arguments.model).stem}-{machine.slug()}"
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    text = _markdown(report)
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


def run(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], Rows]:
    """Convert; return seconds and peaks of resident memory in GB, and the artefacts' parity."""
    model, weights, card = arguments.model, arguments.weights, arguments.card
    head: tuple[str, ...] = ()
    if weights == random_weights.NONE:
        path = random_weights.write(model, Path(arguments.images), Sampling(), folder)
        model, card, weights = str(path), model, SourceRequest.weights
        head = ("--head", "logits", "--force-input")
    command = [
        *(sys.executable, "-m", "kedge_runtime.cli", "convert", _absolute(model), "--json"),
        *("--weights", weights, "--to", arguments.to, "--out", "out"),
        *("--calibrate", _absolute(arguments.images)),
        *(("--card", card) if card else ()),
        *head,
    ]
    ran = peak.run(command, folder)
    if ran.code:
        sys.exit(f"kedge convert ended with exit code {ran.code}\n{ran.stderr}{ran.stdout}")
    peaks = {"peak_gb": ran.peak, "command_gb": ran.parent, "worker_gb": ran.children}
    cost = {name: round(size / 1e9, 2) for name, size in peaks.items()}
    made = json.loads(ran.stdout)["artefacts"]
    rows = [{**{key: one[key] for key in ("target", "bytes")}, **one["parity"]} for one in made]
    return {"seconds": round(ran.seconds, 1), **cost}, rows


def _absolute(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name


def exactness(arguments: argparse.Namespace, out: Path) -> Rows:
    """Compare every artefact with the original on all images that calibrated none of them."""
    source = load_source(
        SourceRequest(arguments.model, card=arguments.card, weights=arguments.weights)
    )
    images = Path(arguments.images)
    calibrated = set(collect(images, Sampling()).calibration)
    photos = sorted(p for p in images.rglob("*") if p.is_file() and p not in calibrated)
    reference = source.logits(tensors(photos, source.input))
    targets = parse_targets(arguments.to)
    return [_row(target, out, source, photos, reference) for target in targets]


def _row(target: Target, out: Path, source: Any, photos: list[Path], reference: Any) -> Any:
    path = out / target.file_name(source.name)
    measured = parity.compare(reference, parity.answers(read_content(path), photos), source.output)
    return {"target": str(target), "bytes": path.stat().st_size, **asdict(measured)}


def _markdown(report: dict[str, Any]) -> str:
    lines = [
        f"# Conversion of {report['model']}",
        "",
        f"{report['machine']['processor']}, {report['machine']['cores']} cores: "
        f"{report['seconds']} s with parity on 100 images, peak memory {report['peak_gb']} GB "
        f"({report['command_gb']} GB the command, {report['worker_gb']} GB its worker).",
        "",
        "| target | MB | images | top-1 | top-5 | max error | mean error | SQNR dB | KL |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    return "\n".join([*lines, *map(_cells, report["targets"])]) + "\n"


def _cells(row: dict[str, Any]) -> str:
    return (
        f"| {row['target']} | {row['bytes'] / 1e6:.2f} | {row['images']} | {row['agreement']:.3f} "
        f"| {row['agreement_top5']:.3f} | {row['logit_max_error']:.2g} "
        f"| {row['logit_mean_error']:.2g} | {row['sqnr']:.1f} | {row['kl']:.2g} |"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a file, or a card's name")
    parser.add_argument("--card")
    parser.add_argument("--weights", default=SourceRequest.weights)
    parser.add_argument("--to", default="all")
    parser.add_argument("--images", required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
