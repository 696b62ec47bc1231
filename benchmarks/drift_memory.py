"""Does drift hold 50 000 images in memory? Its peak over many images to that over few.

Photos are linked under other names until there are enough of them. Once as on a device, against a
reference; once with the float original in Keras beside it, which records one.

    python benchmarks/drift_memory.py --artefact FILE.int8.tflite --model FILE.keras --images DIR
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import machine

RESULTS = Path(__file__).parent / "results"
FEW, MANY = 100, 10_000
MOST = 1.2
# The command in a process of its own, which reads its own high-water mark at the end.
MEASURED = (
    "import atexit, sys; from pathlib import Path; from kedge_runtime.cli import main; "
    "status = Path('/proc/self/status'); place = Path(sys.argv.pop(1)); "
    "atexit.register(lambda: place.write_text(status.read_text())); main()"
)


def main() -> int:
    arguments = _arguments()
    with TemporaryDirectory(prefix="kedge-drift-") as folder:
        rows = measured(arguments, Path(folder))
    report = {"machine": machine.identity(), "artefact": arguments.artefact.name, "rows": rows}
    name = f"drift-memory-{machine.slug()}"
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    text = _markdown(rows)
    (RESULTS / f"{name}.md").write_text(text)
    print(text)
    return int(any(row["ratio"] > MOST for row in rows))


def measured(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Return the peak bytes of both ways by the number of images."""
    peaks: dict[str, list[int]] = {"with Keras": [], "on a device": []}
    for count in (FEW, MANY):
        images = folder / str(count)
        link(sorted(arguments.images.iterdir()), count, images)
        reference = folder / f"{count}.npz"
        words = ["drift", arguments.artefact, "--images", images, "--truth", "none", "--json"]
        recording = [*words, "--against", arguments.model, "--record", reference]
        peaks["with Keras"].append(peak(recording, folder))
        peaks["on a device"].append(peak([*words, "--against", reference], folder))
    return [
        {"way": way, "few": few, "many": many, "ratio": many / few}
        for way, (few, many) in peaks.items()
    ]


def link(photos: Sequence[Path], count: int, folder: Path) -> None:
    """Give `count` names to some photos, in a new folder."""
    folder.mkdir()
    for i, photo in enumerate(islice(cycle(photos), count)):
        (folder / f"{i:05} {photo.name}").symlink_to(photo.resolve())


def peak(words: Sequence[object], folder: Path) -> int:
    """Return the peak resident memory of a run of kedge in bytes, whatever its verdict."""
    place = folder / "status"
    command = [sys.executable, "-c", MEASURED, place, *words]
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if ran.returncode not in (0, 1, 3):
        raise SystemExit(ran.stderr)
    found = re.search(r"VmHWM:\s+(\d+) kB", place.read_text())
    assert found
    return int(found[1]) << 10


def _markdown(rows: list[dict[str, Any]]) -> str:
    head = f"| peak memory | {FEW} images | {MANY:,} images | ratio |\n| --- | --: | --: | --: |\n"
    return head + "".join(
        f"| {row['way']} | {row['few'] / 1e6:.0f} MB | {row['many'] / 1e6:.0f} MB "
        f"| {row['ratio']:.3f} |\n"
        for row in rows
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artefact", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
