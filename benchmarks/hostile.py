"""What do hostile files cost? Every file through every command that would open it.

Each run is the program `kedge` in a process of its own. It must end with exit code 0, 1 or 2 (70 is
a bug, a signal is a crash), write one line on stderr at most beside the command's table, and stay
below 600 MB (peak resident memory of all its processes) and 10 seconds.

    python benchmarks/hostile.py --files DIR --artefact FILE.tflite --images DIR
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import machine
import peak
from kedge_runtime.artefact import containers
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.artefact.provenance import FOREIGN

RESULTS = Path(__file__).parent / "results"
MOST_BYTES, MOST_SECONDS = 600e6, 10.0
CODES = (0, 1, 2, 3)
KEDGE = (sys.executable, "-m", "kedge_runtime.cli")
# By suffix, a command line per command; {x} are replaced below.
MODEL = (
    "classify {file} {image}",
    "classify {file} {image} --contract {contract}",
    "verify {file}",
    "inspect {file}",
    "bench {file} {image} --rounds 2",
    "seal {file} --reseal --labels {labels} --preprocess imagenet --normalisation tf "
    "--head softmax --out {out}",
    "drift {file} --against {reference} --images {images}",
)
OPENED_BY: dict[str, tuple[str, ...]] = {
    ".tflite": MODEL,
    ".onnx": (*MODEL, "classify {file} {image} --engine opencv"),
    ".png": ("classify {artefact} {file}", "drift {artefact} --against {reference} --images {at}"),
    ".jpg": ("classify {artefact} {file}",),
    ".webp": ("classify {artefact} {file}",),
    ".bmp": ("classify {artefact} {file}",),
    ".json": ("classify {bare} {image} --contract {file}",),
    ".toml": ("build {file}", "build {matrix}"),
    ".journal": ("drift {artefact} --against {reference} --images {images} --out {resumed}",),
}


MATRIX = """
[[model]]
name = "demo"
"""


@dataclass(frozen=True)
class Row:
    """What a run took; `lines`: on stderr."""

    file: str
    command: str
    code: int
    lines: int
    seconds: float
    memory: int
    said: str

    @property
    def passed(self) -> bool:
        """Whether it is within every bound."""
        cheap = self.memory < MOST_BYTES and self.seconds < MOST_SECONDS
        return self.code in CODES and cheap and "Traceback" not in self.said


def rows(files: list[Path], places: dict[str, Path], folder: Path) -> Iterator[Row]:
    """Yield a row per file and command."""
    for file in files:
        for line in OPENED_BY.get(file.suffix, ()):
            with TemporaryDirectory(dir=folder) as fresh:
                yield _row(file, line, places, Path(fresh))


def _row(file: Path, line: str, places: dict[str, Path], folder: Path) -> Row:
    copy = folder / "at" / file.name
    copy.parent.mkdir()
    shutil.copy(file, copy)
    resumed = folder / "drift.json"
    shutil.copy(file, folder / ".drift.json.0.journal")
    shutil.copy(file, folder / "matrix.lock.toml")
    (folder / "matrix.toml").write_text(MATRIX, encoding="utf-8")
    known = {**places, "file": copy, "at": copy.parent, "out": folder / f"out{file.suffix}"}
    known["matrix"] = folder / "matrix.toml"
    words = [word.format(**known, resumed=resumed) for word in line.split()]
    ran = peak.run([*KEDGE, *words], folder)
    said = ran.stderr.replace(str(folder), ".").replace(str(folder.parent), ".")
    command = line.partition(" ")[0]
    return Row(file.name, command, ran.code, said.count("\n"), ran.seconds, ran.peak, said[:300])


def _places(options: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Return what the commands need beside the hostile file, made here from a good artefact."""
    artefact, bare = options.artefact, folder / "bare.tflite"
    bare.write_bytes(containers.split("tflite", artefact.read_bytes())[0])
    contract = read_artefact(artefact).contract
    plain = replace(contract, provenance=FOREIGN)
    (folder / "contract.json").write_text(plain.to_json(), encoding="utf-8")
    labels = "".join(f"{label.name}\n" for label in contract.labels)
    (folder / "labels.txt").write_text(labels, encoding="utf-8")
    images = folder / "images"
    images.mkdir()
    for image in sorted(options.images.iterdir())[:8]:
        shutil.copy(image, images)
    reference = folder / "reference.npz"
    record = ["drift", str(artefact), "--images", str(images), "--against", str(artefact)]
    ran = peak.run([*KEDGE, *record, "--record", str(reference)], folder)
    assert reference.is_file(), ran.stderr
    return {
        "artefact": artefact.resolve(),
        "bare": bare,
        "contract": folder / "contract.json",
        "labels": folder / "labels.txt",
        "image": next(images.iterdir()),
        "images": images,
        "reference": reference,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--artefact", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="kedge-hostile-") as name:
        folder = Path(name)
        places = _places(options, folder)
        found = []
        for row in rows(sorted(options.files.iterdir()), places, folder):
            found.append(row)
            word = "ok" if row.passed else "NO"
            figures = f"{row.code:4} {row.seconds:5.1f} s {row.memory / 1e6:6.0f} MB"
            print(f"{word} {figures} {row.command:9} {row.file}  {row.said.strip()}", flush=True)
    failed = [row for row in found if not row.passed]
    report = {
        "machine": machine.identity(),
        "runs": len(found),
        "failed": len(failed),
        "most_bytes": max(row.memory for row in found),
        "most_seconds": max(row.seconds for row in found),
        "rows": [asdict(row) for row in found],
    }
    path = RESULTS / f"hostile-{machine.slug()}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"{len(found)} runs, {len(failed)} failed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
