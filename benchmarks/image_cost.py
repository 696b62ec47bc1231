"""What memory and time does the largest image of each kind take, and the photos of phones?

Each image is read whole, and is classified by `kedge classify`, in a process of its own each. The
memory is the process's peak above that with an image of 64x48 pixels. Exit code 1 when a kind takes
more than the limit, or a phone's photo is refused.

    python benchmarks/image_cost.py --artefact demo.int8.tflite [--board MIB]

With --board the whole command runs in a control group of so much memory, without swap, as on a
board whose system leaves no more: 416 MiB on a Raspberry Pi Zero 2 W. It needs the right to make
control groups.
"""

import argparse
import io
import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from PIL import Image

import machine
from kedge_runtime.image.decode import LIMITS
from kedge_runtime.image.header import read_header

RESULTS = Path(__file__).parent / "results"
SMALL = 64, 48
PROBE = 1024, 768  # from which the largest size of a kind is told
MIB = 1 << 20
ORIENTATION = 0x0112
Make = Callable[[int, int], bytes]
# A process that reads its own high-water mark at the end.
WATCHED = (
    "import atexit, sys; from pathlib import Path; place = Path(sys.argv.pop(1)); "
    "status = Path('/proc/self/status'); "
    "atexit.register(lambda: place.write_text(status.read_text())); "
)
READ = WATCHED + "from kedge_runtime.image.decode import read_image; read_image(sys.argv[1])"
JOIN: list[str] = []  # what starts each process inside the board's control group
CLASSIFY = WATCHED + "from kedge_runtime.cli import main; main()"


@dataclass(frozen=True)
class Spent:
    """Peak memory in `mib`, CPU `seconds`; `refused`: the message where there was one."""

    mib: float
    seconds: float
    refused: str = ""

    def above(self, other: "Spent") -> "Spent":
        """Return what this took more."""
        mib, seconds = self.mib - other.mib, self.seconds - other.seconds
        return Spent(round(mib, 1), round(seconds, 2), self.refused)

    def __str__(self) -> str:
        """Return the cells of a table."""
        return f"{self.refused or round(self.mib)} | {self.seconds:.2f}"


@dataclass(frozen=True)
class Row:
    """An image of a kind, read whole and classified."""

    kind: str
    megapixels: float
    read: Spent
    classified: Spent


def scene(width: int, height: int) -> Image.Image:
    """Return soft stripes with a texture of eight pixels, RGB."""
    rows, columns = np.ogrid[0:height, 0:width]
    channels = [
        np.uint8((rows // 8 * a + columns // 8 * b) % 256) for a, b in ((3, 5), (7, 1), (2, 9))
    ]
    return Image.fromarray(np.dstack(channels))


def pillow(form: str, mode: str = "RGB", turn: int = 1, **options: Any) -> Make:
    """Return a function that encodes a scene with Pillow; `turn`: EXIF's orientation."""

    def make(width: int, height: int) -> bytes:
        file, held = io.BytesIO(), Image.Exif()
        held[ORIENTATION] = turn
        exif: dict[str, Any] = {"exif": held} if turn > 1 else {}
        image = scene(width, height).convert(mode)
        if mode == "RGBA":
            image.putalpha(image.getchannel(0))
        image.save(file, form, **options, **exif)
        return file.getvalue()

    return make


def deep(width: int, height: int) -> bytes:
    """Return a PNG of 16 bits and four channels."""
    wide = np.asarray(scene(width, height).convert("RGBA")).astype(np.uint16) * 257
    return cv2.imencode(".png", wide, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


FAST: dict[str, Any] = {"method": 0, "quality": 50}
KINDS: dict[str, Make] = {
    "JPEG, baseline": pillow("JPEG"),
    "JPEG, baseline, turned": pillow("JPEG", turn=6),
    "JPEG, baseline, CMYK": pillow("JPEG", "CMYK"),
    "JPEG, progressive": pillow("JPEG", progressive=True),
    "JPEG, progressive, full colour": pillow("JPEG", progressive=True, subsampling=0),
    "JPEG, progressive, CMYK": pillow("JPEG", "CMYK", progressive=True),
    "JPEG, progressive, turned": pillow("JPEG", turn=6, progressive=True),
    "PNG, 8 bit RGBA": pillow("PNG", "RGBA", compress_level=1),
    "PNG, 8 bit RGB, turned": pillow("PNG", turn=6, compress_level=1),
    "PNG, 16 bit RGBA": deep,
    "PNG, palette": pillow("PNG", "P", compress_level=1),
    "WebP, lossy": pillow("WEBP", **FAST),
    "WebP, lossy, turned": pillow("WEBP", turn=6, **FAST),
    "WebP, lossy, alpha": pillow("WEBP", "RGBA", **FAST),
    "WebP, lossless": pillow("WEBP", lossless=True, **FAST),
    "WebP, lossless, alpha": pillow("WEBP", "RGBA", lossless=True, **FAST),
    "BMP, 1 bit": pillow("BMP", "1"),
    "BMP, 8 bit": pillow("BMP", "L"),
    "BMP, 24 bit": pillow("BMP"),
    "BMP, 32 bit": pillow("BMP", "RGBA"),
}
PHOTOS = {"12": (4032, 3024), "24": (5712, 4284), "48": (8064, 6048), "50": (8160, 6120)}
PHONES = {
    (f"photo of {name} MP{words}", turn): size
    for name, size in PHOTOS.items()
    for words, turn in (("", 1), (", turned", 6))
}


def largest(make: Make) -> tuple[int, int]:
    """Return width and height, 4:3, of the largest image of a kind that the limits allow."""
    content, pixels = make(*PROBE), PROBE[0] * PROBE[1]
    each = read_header(content).memory() / pixels
    most = min(LIMITS.pixels, LIMITS.memory / each, LIMITS.bytes / (len(content) / pixels))
    # Rounded down: sizes of files don't grow quite as pixels do.
    side = (0.97 * most / 12) ** 0.5
    return int(side) * 4, int(side) * 3


@contextmanager
def board(mib: int) -> Iterator[None]:
    """Make a control group of so many MiB, of version 1 or 2, which the processes join."""
    old = Path("/sys/fs/cgroup/memory")
    group = (old if old.is_dir() else Path("/sys/fs/cgroup")) / "kedge-board"
    group.mkdir()
    bound = "memory.limit_in_bytes" if old.is_dir() else "memory.max"
    (group / bound).write_text(str(mib * MIB))
    JOIN[:] = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "board"]
    try:
        yield
    finally:
        JOIN.clear()
        group.rmdir()


def spent(program: str, words: list[object], folder: Path) -> Spent:
    """Return what a program took in a process of its own."""
    place = folder / "status"
    place.write_text("VmHWM: 0 kB")  # what a process leaves that the board's memory can't hold
    command = [*JOIN, sys.executable, "-c", program, place, *words]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = re.search(r"VmHWM:\s+(\d+) kB", place.read_text())
    assert peak
    refused = ran.stderr.strip().rpartition(": ")[2] if ran.returncode else ""
    refused = f"ended by signal {-ran.returncode}" if ran.returncode < 0 else refused
    return Spent(int(peak[1]) / 1024, seconds, refused)


def both(content: bytes, artefact: Path, folder: Path) -> tuple[Spent, Spent]:
    """Return what reading an image took, and classifying it."""
    image = folder / "image"
    image.write_bytes(content)
    return spent(READ, [image], folder), spent(CLASSIFY, ["classify", artefact, image], folder)


def rows(artefact: Path, folder: Path) -> list[Row]:
    """Return a row for the largest image of each kind and for each phone's photo."""
    cases = {kind: (make, largest(make)) for kind, make in KINDS.items()}
    cases |= {kind: (pillow("JPEG", turn=turn), size) for (kind, turn), size in PHONES.items()}
    small = both(pillow("JPEG")(*SMALL), artefact, folder)
    found = []
    for kind, (make, (width, height)) in cases.items():
        large = both(make(width, height), artefact, folder)
        above = [each.above(start) for each, start in zip(large, small, strict=True)]
        found.append(Row(kind, round(width * height / 1e6, 1), *above))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--artefact", type=Path, required=True)
    parser.add_argument("--board", type=int, metavar="MIB")
    arguments = parser.parse_args()
    artefact = arguments.artefact.resolve()
    Image.MAX_IMAGE_PIXELS = None
    held = board(arguments.board) if arguments.board else nullcontext()
    with held, TemporaryDirectory(prefix="kedge-images-") as folder:
        found = rows(artefact, Path(folder))
    report = {
        "machine": machine.identity(),
        "opencv": cv2.__version__,
        "artefact": artefact.name,
        "limit_mib": LIMITS.memory / MIB,
        "board_mib": arguments.board,
        "rows": [asdict(row) for row in found],
    }
    name = f"image-cost-{machine.slug()}"
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    (RESULTS / f"{name}.md").write_text(_markdown(found))
    each = [each for row in found for each in (row.read, row.classified)]
    return int(any(one.mib > LIMITS.memory / MIB or one.refused for one in each))


def _markdown(found: list[Row]) -> str:
    head = (
        "Peak memory in MiB and CPU seconds above those of an image of 64x48 pixels; "
        f"allowed are {LIMITS.memory // MIB} MiB. `classify` decodes JPEGs at a fraction.\n\n"
        "| image | megapixels | read, MiB | s | classify, MiB | s |\n"
        "| --- | --: | --: | --: | --: | --: |\n"
    )
    return head + "".join(
        f"| {row.kind} | {row.megapixels} | {row.read} | {row.classified} |\n" for row in found
    )


if __name__ == "__main__":
    sys.exit(main())
