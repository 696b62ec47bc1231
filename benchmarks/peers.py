"""Other programs that read kedge's files, in an environment of their own: their needs clash.

MediaPipe brings another build of OpenCV under the same name, so neither can be an extra of kedge.
The environment is made on first use, in $KEDGE_CACHE or ~/.cache/kedge: a minute, 480 MB.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
# The programs, without what they ask for; then what they import of it, held by the project's pins.
PROGRAMS = ("mediapipe==1.2.2", "netron==9.3.3")
NEEDS = ("absl-py", "certifi", "flatbuffers", "matplotlib", "numpy", "opencv-python-headless")
PINS = HERE.parent / "constraints.txt"


class PeersError(Exception):
    """The environment can't be made here, or a peer refused what it was given; the last line."""


def python() -> Path:
    """Return the interpreter of the peers' environment. Raises PeersError."""
    told = "\n".join([*PROGRAMS, *NEEDS, PINS.read_text(encoding="utf-8"), sys.version])
    cache = Path(os.environ.get("KEDGE_CACHE") or Path.home() / ".cache" / "kedge")
    place = cache / f"peers-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
    with _alone(cache):
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=cache, prefix=".making-") as folder:
                _make(Path(folder) / "peers").rename(place)
    return place / "bin" / "python"


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Hold off other processes that want the same."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".peers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(place: Path) -> Path:
    venv.create(place, symlinks=True)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", place / "bin" / "python"]
    pip += ["install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--no-deps", *PROGRAMS])
    # With hashes pip would take nothing else, and not all of it is pinned.
    lines = PINS.read_text(encoding="utf-8").splitlines()
    pins = place / "constraints.txt"
    pins.write_text("".join(f"{line.rstrip(chr(92))}\n" for line in lines if "--hash" not in line))
    _run([*pip, "-c", pins, *NEEDS])
    return place


def _run(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise PeersError((done.stderr.strip().splitlines() or [f"{command[0]} failed"])[-1])
    return done.stdout


def classify(
    model: Path,
    images: Sequence[NDArray[np.uint8]],
    regions: Sequence[tuple[float, float, float, float]] = (),
) -> list[list[dict[str, Any]]]:
    """Return MediaPipe's answers to RGB images, uint8 [h, w, 3]: all classes, best first.

    Each has `index`, `name`, `score`. `regions`: left, top, right, bottom of what is looked at, in
    shares of the image; none means all of it. Raises PeersError when MediaPipe refuses the model.
    """
    with tempfile.TemporaryDirectory(prefix="kedge-") as folder:
        file = Path(folder) / "images.npz"
        arrays = {f"image_{i}": each for i, each in enumerate(images)}
        np.savez(file, regions=np.array(regions, np.float64), **arrays)  # type: ignore[arg-type]
        said = _run([python(), "-I", HERE / "peer_mediapipe.py", model, file])
    answers: list[list[dict[str, Any]]] = json.loads(said)
    return answers


def folder_of(package: str) -> Path:
    """Return where a package of the environment lies. Raises PeersError."""
    (found,) = python().parents[1].glob(f"lib/python*/site-packages/{package}")
    return found
