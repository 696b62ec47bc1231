"""What does everything cost that the runtime does beside decode and invoke?

A classifier is called on the bytes of photos; cv2.imdecode and the interpreter's invoke are clocked
inside the call, and the rest of its time is the runtime's: header, colour, resize, table, set, get,
head. Given as a share of one invoke, at one thread and at all cores, medians over
the photos after a warm-up, and with it the parts of the rest. Exit code 1 above the limit.

    python benchmarks/preprocessing_cost.py --artefact FILE.int8.tflite --images DIR
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2

import machine
from kedge_runtime import Classifier
from kedge_runtime.geometry import fit_to
from kedge_runtime.head import probabilities
from kedge_runtime.headers import read_header

RESULTS = Path(__file__).parent / "results"
WARM_UP = 20
MAX_SHARE = 0.06

Seconds = dict[str, list[float]]


def main() -> int:
    arguments = _arguments()
    photos = sorted(p for p in arguments.images.rglob("*") if p.is_file())[: arguments.limit]
    counts = sorted({1, os.cpu_count() or 1})
    rows = {str(count): measure(arguments.artefact, photos, count) for count in counts}
    report = {
        "machine": machine.identity(),
        "artefact": arguments.artefact.name,
        "photos": len(photos),
        "limit": MAX_SHARE,
        "threads": rows,
    }
    _write(report)
    return int(any(row["share"] > MAX_SHARE for row in rows.values()))


def measure(artefact: Path, photos: list[Path], threads: int) -> dict[str, float]:
    """Return medians in microseconds and, as `share`, the rest over the invoke."""
    cv2.setNumThreads(threads)
    classifier = Classifier.open(artefact, threads=threads)
    seconds: Seconds = defaultdict(list)
    plain = cv2.imdecode
    interpreter = classifier.engine._interpreter  # type: ignore[attr-defined]
    try:
        cv2.imdecode = _clocked("decode", seconds, plain)  # type: ignore[assignment]
        interpreter.invoke = _clocked("invoke", seconds, interpreter.invoke)
        for photo in [*photos[:WARM_UP], *photos]:
            _clocked("total", seconds, classifier)(photo.read_bytes())
    finally:
        cv2.imdecode = plain  # type: ignore[assignment]
    kept = {name: found[WARM_UP:] for name, found in seconds.items()}
    triples = zip(kept["total"], kept["decode"], kept["invoke"], strict=True)
    kept["rest"] = [total - decode - invoke for total, decode, invoke in triples]
    micros = {name: round(statistics.median(found) * 1e6, 1) for name, found in kept.items()}
    return {
        **micros,
        "share": round(micros["rest"] / micros["invoke"], 4),
        **_parts(classifier, photos),
    }


def _parts(classifier: Classifier, photos: list[Path]) -> dict[str, float]:
    """Return medians of the larger parts of the rest, in microseconds."""
    seconds: Seconds = defaultdict(list)
    plan, contract = classifier._preprocessor, classifier.contract
    for photo in photos:
        content = photo.read_bytes()
        _clocked("header", seconds, read_header)(content)
        pixels = classifier.read(content)
        _clocked("fit", seconds, fit_to)(pixels, contract.input.geometry)
        _clocked("fit and table", seconds, plan.tensor)(pixels)
        outputs = classifier.run(pixels)
        values = _clocked("softmax", seconds, probabilities)(outputs, contract.output)
        _clocked("top 5", seconds, classifier.classes.result)(values, 5)
    return {name: round(statistics.median(found) * 1e6, 1) for name, found in seconds.items()}


def _clocked(name: str, seconds: Seconds, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments)
        seconds[name].append(time.perf_counter() - start)
        return result

    return run


def _write(report: dict[str, Any]) -> None:
    name = f"preprocessing-cost-{machine.slug()}"
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    columns = list(next(iter(report["threads"].values())))
    lines = [
        f"# What the runtime costs beside decode and invoke, {report['artefact']}",
        "",
        f"{report['machine']['processor']}, {report['photos']} photos, medians in microseconds. "
        f"Share is the rest over the invoke, limit {report['limit']}.",
        "",
        f"| threads | {' | '.join(columns)} |",
        f"| --: {'| --: ' * len(columns)}|",
    ]
    for threads, row in report["threads"].items():
        lines.append(f"| {threads} | {' | '.join(str(row[column]) for column in columns)} |")
    text = "\n".join(lines) + "\n"
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--artefact", type=Path, required=True, help="a sealed int8 classifier")
    parser.add_argument("--images", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--limit", type=int, default=300)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
