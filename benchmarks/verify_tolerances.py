"""How far apart are the outputs of right deployments, and how far those of other weights?

`kedge verify` must let engines, kernels and threads pass and must find other weights. For every
artefact of one model this prints the signal-to-noise ratio, in dB, against its outputs on the
default engine with one thread: the least over photos and right deployments, and the greatest over
photos for the same network with each weight w turned into w * (1 + noise * normal). TOLERANCES in
kedge_runtime/verify.py lie between. Exit code 1 when one doesn't.

    python benchmarks/verify_tolerances.py --folder DIR --images DIR --model MODEL.keras \\
        --card MobileNetV2

DIR as `kedge convert MODEL.keras --card MobileNetV2 --to all --out DIR` filled it. Converting the
noised models takes two minutes each.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import machine
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.file import Artefact, read_artefact
from kedge_runtime.checks.verify import TOLERANCES
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.drift.statistics import sqnr
from kedge_runtime.engines.choice import ENGINES, EngineOptions, open_engine
from kedge_runtime.errors import EngineError
from kedge_runtime.image.preprocessing import Preprocessor
from kedge_runtime.output import quiet

RESULTS = Path(__file__).parent / "results"
NOISES = (0.01, 0.05)
THREADS = (1, 2, 4)
UNIT = EngineOptions(threads=1)


def main() -> int:
    arguments = _arguments()
    photos = sorted(p for p in arguments.images.rglob("*") if p.is_file())[: arguments.limit]
    with tempfile.TemporaryDirectory() as folder, quiet():
        others = [_noised(arguments, noise, Path(folder)) for noise in NOISES]
        paths = sorted(p for p in arguments.folder.iterdir() if p.suffix in (".tflite", ".onnx"))
        rows = [measure(path, photos, others) for path in paths]
    report = {"machine": machine.identity(), "photos": len(photos), "rows": rows}
    _write(report)
    return int(not all(row["right"] > row["tolerance"] > row["others"]["0.01"] for row in rows))


def measure(path: Path, photos: list[Path], others: list[Path]) -> dict[str, Any]:
    """Return the row of one artefact; `others` are folders of its namesakes, one per noise."""
    artefact = read_artefact(path)
    reference = _outputs(artefact, UNIT, photos)
    ways = {}
    for options in _ways(path):
        try:
            ways[_name(options)] = _ratios(reference, _outputs(artefact, options, photos)).min()
        except EngineError:
            continue  # OpenCV refuses integer graphs, in so many words
    noised = {
        str(noise): _ratios(reference, _other(folder / path.name, artefact, photos)).max()
        for noise, folder in zip(NOISES, others, strict=True)
    }
    return {
        "artefact": path.name,
        "tolerance": TOLERANCES[artefact.contract.provenance.precision],
        "right": round(float(min(ways.values())), 1),
        "ways": {name: round(float(ratio), 1) for name, ratio in ways.items()},
        "others": {noise: round(float(ratio), 1) for noise, ratio in noised.items()},
    }


def _other(path: Path, artefact: Artefact, photos: list[Path]) -> Floats:
    """Return the outputs of other weights; their own input scale is theirs to be fed with."""
    other = read_artefact(path)
    assert other.contract.input.geometry == artefact.contract.input.geometry
    return _outputs(other, UNIT, photos)


def _outputs(artefact: Artefact, options: EngineOptions, photos: list[Path]) -> Floats:
    classifier = Classifier(artefact, open_engine(read_content(artefact.path), options))
    plan = Preprocessor(artefact.contract.input)
    return np.stack([classifier.run(plan.read(photo)) for photo in photos])


def _ways(path: Path) -> Iterator[EngineOptions]:
    for name, kind in ENGINES.items():
        if path.suffix[1:] not in kind.formats:
            continue
        for kernels in sorted(kind.kernels - {"reference"}):
            yield from (EngineOptions(count, engine=name, kernels=kernels) for count in THREADS)


def _name(options: EngineOptions) -> str:
    return f"{options.engine} {options.kernels} {options.threads}"


def _ratios(reference: Floats, found: Floats) -> Floats:
    pairs = zip(reference, found, strict=True)
    return np.array([sqnr(one, other) for one, other in pairs], np.float32)


def _noised(arguments: argparse.Namespace, noise: float, folder: Path) -> Path:
    """Convert the model with other weights; return the folder of its artefacts."""
    import keras

    model = keras.models.load_model(arguments.model, compile=False)
    generator = np.random.default_rng(0)
    for weight in model.weights:
        values = weight.numpy()
        weight.assign(values * (1 + noise * generator.standard_normal(values.shape)))
    home, path = folder / str(noise), folder / str(noise) / arguments.model.name
    home.mkdir()
    model.save(path)
    words = ["convert", str(path), "--card", arguments.card, "--to", "all", "--out", str(home)]
    words += ["--calibrate", str(arguments.images)]
    command = [sys.executable, "-m", "kedge_runtime.cli", *words]
    subprocess.run(command, check=True, capture_output=True)
    return home


def _write(report: dict[str, Any]) -> None:
    name = f"verify-tolerances-{machine.slug()}"
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    lines = [
        "# How far right and wrong deployments are from what was recorded",
        "",
        f"{report['machine']['processor']}, {report['photos']} photos, in dB. Right: the least "
        "over engines, kernels and 1, 2, 4 threads. Noise: the greatest, same network with weights "
        "off by that share.",
        "",
        "| artefact | right | noise 1 % | noise 5 % | tolerance |",
        "| --- | --: | --: | --: | --: |",
    ]
    lines += [
        f"| {row['artefact']} | {row['right']} | {row['others']['0.01']} | "
        f"{row['others']['0.05']} | {row['tolerance']} |"
        for row in report["rows"]
    ]
    text = "\n".join(lines) + "\n"
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="artefacts of one model")
    parser.add_argument("--images", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--model", type=Path, required=True, help="what they were made of")
    parser.add_argument("--card", required=True, help="its card")
    parser.add_argument("--limit", type=int, default=100)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
