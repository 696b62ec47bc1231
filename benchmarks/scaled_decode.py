"""What does decoding big JPEGs at a fraction of their size save, and what does it change?

Every photo is blown up to 12 megapixels (Lanczos, mild sensor noise) and encoded as a camera does,
one at a time in a temporary folder. Read, decode, preprocess and invoke are timed together as CPU
time on one thread, with scaled decode and `pyramid` or `area`, against full decode and `area` on
the same engine. The answers are compared with those of full decode and `area`, and with the labels
in the file names. Exit code 1 when the saving or the agreement misses its limit.

    python benchmarks/scaled_decode.py --artefact FILE.int8.tflite --images DIR
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import machine
from kedge_runtime.arrays import Pixels
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.artefact.kinds import Resize
from kedge_runtime.engines.base import Engine
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.image.decode import read_image
from kedge_runtime.image.preprocessing import Preprocessor

RESULTS = Path(__file__).parent / "results"
MEGAPIXELS, QUALITY, NOISE = 12e6, 90, 2.5  # the noise's standard deviation in steps of 255
WARM_UP = 3
MAX_COST, MIN_AGREEMENT = 0.45, 0.95

# Name -> resize method and whether the decoder scales; the first is what the others are held to.
WAYS: dict[str, tuple[Resize, bool]] = {
    "full, area": ("area", False),
    "full, pyramid": ("pyramid", False),
    "scaled, area": ("area", True),
    "scaled, pyramid": ("pyramid", True),
}


def main() -> int:
    arguments = _arguments()
    cv2.setNumThreads(1)
    contract = read_artefact(arguments.artefact).contract
    options = EngineOptions(threads=1)
    engine = open_engine(read_content(arguments.artefact), options)
    photos = _every_so_many(sorted(arguments.images.rglob("*.JPEG")), arguments.limit)
    seconds, answers = measure(photos, contract, engine)
    truth = [_class_of(photo, contract) for photo in photos]
    rows = {way: _row(way, seconds, answers, truth) for way in WAYS}
    report = {
        "machine": machine.identity(),
        "artefact": arguments.artefact.name,
        "photos": len(photos),
        "ways": rows,
    }
    _write(report)
    scaled = [row for way, row in rows.items() if WAYS[way][1]]
    return int(any(r["cost"] > MAX_COST or r["agreement"] < MIN_AGREEMENT for r in scaled))


def measure(photos: list[Path], contract: Contract, engine: Engine) -> tuple[Any, Any]:
    """Return CPU seconds and top-1 class by way, an array over the photos each."""
    plans = {way: _plan(contract, *settings) for way, settings in WAYS.items()}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    answers: dict[str, list[int]] = {way: [] for way in WAYS}
    generator = np.random.default_rng(0)
    noise = generator.normal(0, NOISE, (6000, 6000, 1)).astype(np.int8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        for number, photo in enumerate(photos):
            path.write_bytes(blown_up(read_image(photo), noise, generator))
            for way, plan in plans.items():
                for _ in range(1 if number else WARM_UP):
                    spent, answer = _once(path, plan, engine)
                seconds[way].append(spent)
                answers[way].append(answer)
    return seconds, {way: np.array(found) for way, found in answers.items()}


def blown_up(pixels: Pixels, noise: Any, generator: np.random.Generator) -> bytes:
    """Return a JPEG of about MEGAPIXELS of the image, with grain at the sensor's scale."""
    scale = (MEGAPIXELS / (pixels.shape[0] * pixels.shape[1])) ** 0.5
    big = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_LANCZOS4)
    top, left = generator.integers(0, 1000, 2)
    grain = np.resize(noise[top:, left:], big.shape[:2])[..., None]
    grainy = np.clip(big.astype(np.int16) + grain, 0, 255).astype(np.uint8)
    bgr = cv2.cvtColor(grainy, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def _plan(contract: Contract, resize: Resize, scaled: bool) -> Preprocessor:
    geometry = replace(contract.input.geometry, resize=resize, scaled_decode=scaled)
    return Preprocessor(replace(contract.input, geometry=geometry))


def _once(path: Path, plan: Preprocessor, engine: Engine) -> tuple[float, int]:
    start = time.process_time()
    output = engine.run(plan.tensor(plan.read(path)))
    return time.process_time() - start, int(output.argmax())


def _row(way: str, seconds: Any, answers: Any, truth: list[int]) -> dict[str, float]:
    first = next(iter(WAYS))
    return {
        "milliseconds": round(float(np.median(seconds[way])) * 1e3, 1),
        "cost": round(float(np.median(np.divide(seconds[way], seconds[first]))), 3),
        "agreement": round(float(np.mean(answers[way] == answers[first])), 4),
        "accuracy": round(float(np.mean(answers[way] == truth)), 4),
    }


def _every_so_many(photos: list[Path], limit: int) -> list[Path]:
    return photos[:: max(1, len(photos) // limit)][:limit]


def _class_of(photo: Path, contract: Contract) -> int:
    ids = [label.id for label in contract.labels]
    synset = photo.name.partition("_")[0]
    return ids.index(synset) if synset in ids else -1


def _write(report: dict[str, Any]) -> None:
    name = f"scaled-decode-{machine.slug()}"
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    lines = [
        f"# Scaled decode of {report['photos']} JPEGs of 12 megapixels, {report['artefact']}",
        "",
        f"{report['machine']['processor']}, one thread. Cost is CPU time of read, decode, "
        "preprocess and invoke over that of full decode and area; agreement is top-1 with it.",
        "",
        "| decode, resize | CPU ms | cost | agreement | top-1 |",
        "| --- | --: | --: | --: | --: |",
    ]
    for way, row in report["ways"].items():
        lines.append(f"| {way} | {' | '.join(str(value) for value in row.values())} |")
    text = "\n".join(lines) + "\n"
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--artefact", type=Path, required=True, help="a sealed int8 classifier")
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEGs")
    parser.add_argument("--limit", type=int, default=200)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
