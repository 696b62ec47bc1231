"""Does kill -9 at a random moment leave anything wrong behind, and is the next run right?

Each command of COMMANDS runs once undisturbed. Then it is killed at random moments of that time,
in one folder, so that each run finds what the ones before it left. After each kill, what lies under
a final name has to be what the undisturbed run gave, byte for byte. The next run has to give all of
it, and to leave neither a hidden file nor anything in the folder for temporary files.

    python benchmarks/kill.py [--kills 20] [--seed 0] [--reruns 5] [COMMAND...]
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import machine
from kedge_models.demo import pictograms

RESULTS = Path(__file__).parent / "results"
KEDGE = (sys.executable, "-m", "kedge_runtime.cli")
# In the environment of a command and of all that it starts.
MARK = "KEDGE_BENCHMARK_KILL"
PATIENCE = 60.0  # seconds for what a killed command has started to end by itself


@dataclass(frozen=True)
class Command:
    """What is killed, in a folder with `photos`, `kedge.toml`, `demo.float32.onnx`, `own.key`.

    `finals`: the files whose bytes repeat, as globs.
    """

    words: tuple[str, ...]
    finals: tuple[str, ...]


DEMO = ("convert", "demo", "--to", "onnx:float32", "--out", ".", "--check-count", "20")
COMMANDS: dict[str, Command] = {
    "convert": Command(
        ("convert", "demo", "--to", "tflite:float32", "--out", "out", "--check-count", "20"),
        ("out/*.tflite*",),
    ),
    "drift": Command(
        (
            *("drift", "demo.float32.onnx", "--images", "photos", "--against", "demo.float32.onnx"),
            *("--min-agreement", ".1", "--truth", "none", "--threads", "1"),
            *("--record", "out/reference.npz", "--out", "out/report.json"),
        ),
        ("out/*.npz",),
    ),
    "build": Command(
        ("build", "kedge.toml", "--cache", "cache"), ("out/*.tflite*", "cache/blobs/[!.]*")
    ),
    "sign": Command(
        (
            *("sign", "demo.float32.onnx", "--key", "own.key", "--serial", "7"),
            *("--out", "out/signed.onnx"),
        ),
        ("out/*.onnx",),
    ),
}
CONFIG = """
[defaults]
targets = ["tflite:float32"]
images = "photos"
gates = { min_agreement = 0.1 }

[options]
effort = "fast"
check_count = 20

[[model]]
name = "demo"
truth = "none"
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a command: the seconds that it takes, and what was wrong, a line each."""

    seconds: float
    kills: int
    reruns: int
    wrong: tuple[str, ...]


def main() -> int:
    arguments = _arguments()
    path = RESULTS / f"kill-{machine.slug()}.json"
    whole = json.loads(path.read_text()) if path.exists() else {}
    whole |= {"machine": machine.identity(), "seed": arguments.seed}
    for name in arguments.commands or COMMANDS:
        moments = random.Random(f"{arguments.seed} {name}")
        with TemporaryDirectory(prefix="kill-") as folder:
            desk = made(Path(folder) / "desk", arguments.demo)
            found = killed(desk, COMMANDS[name], arguments.kills, arguments.reruns, moments)
        whole[name] = asdict(found)
        print(name, found, flush=True)
        path.write_text(json.dumps(whole, indent=2) + "\n")
    return int(any(whole[name]["wrong"] for name in COMMANDS if name in whole))


def killed(
    desk: Path, command: Command, kills: int, reruns: int, moments: random.Random
) -> Outcome:
    """Return what `kills` leave; of them `reruns`, evenly spread, are followed by a whole run."""
    whole, place = (desk.with_name(name) for name in ("whole", "killed"))
    for copy in (whole, place):
        shutil.copytree(desk, copy)
    started = time.perf_counter()
    run(whole, command.words)
    seconds = time.perf_counter() - started
    expected, usual = contents(whole, command), left(whole)
    assert expected, f"{command.words} gives nothing"
    wrong: list[str] = []
    for number in range(1, kills + 1):
        moment = moments.uniform(0, seconds)
        kill(place, command.words, moment)
        where = f"kill {number} after {moment:.2f} s"
        wrong += [f"{where}: {line}" for line in misnamed(place, command, expected)]
        if number * reruns // kills > (number - 1) * reruns // kills:
            run(place, command.words)
            found = [*unlike(place, command, expected)]
            found += [f"{name} is left behind" for name in sorted(left(place) - usual)]
            wrong += [f"run after {where}: {line}" for line in found]
            empty(place)
    return Outcome(round(seconds, 2), kills, reruns, tuple(wrong))


def made(folder: Path, demo: Path | None) -> Path:
    """Make a folder with all that the commands ask for; `demo`: the demo's .onnx if it is there."""
    for name in ("photos", "out", "temporary"):
        (folder / name).mkdir(parents=True)
    pictograms.write(folder / "photos", 200, seed=14)
    (folder / "kedge.toml").write_text(CONFIG)
    if demo:
        shutil.copy(demo, folder / "demo.float32.onnx")
    else:
        run(folder, DEMO)
    run(folder, ("keygen", "own"))
    return folder


def empty(place: Path) -> None:
    """Remove what a run has made, so that the next one has it all to do."""
    for name in ("out", "cache"):
        shutil.rmtree(place / name, ignore_errors=True)
    (place / "out").mkdir()


def run(place: Path, words: Sequence[str]) -> None:
    """Run a command to its end."""
    with start(place, words) as process:
        assert process.wait() == 0, f"{words} ended with {process.returncode}"


def kill(place: Path, words: Sequence[str], moment: float) -> None:
    """Run a command, kill it unless it ends before, and wait for what it has started."""
    with start(place, words) as process:
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while alive(place):
        assert time.monotonic() < end, f"a process of {words} outlives it"
        time.sleep(0.05)


def start(place: Path, words: Sequence[str]) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, MARK: str(place), "TMPDIR": str(place / "temporary")}
    said = subprocess.DEVNULL
    return subprocess.Popen([*KEDGE, *words], cwd=place, env=environment, stdout=said, stderr=said)


def alive(place: Path) -> bool:
    """Whether a process that a command has started is still there."""
    mark = f"{MARK}={place}".encode()
    for each in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in each.read_bytes().split(b"\0"):
                return True
        except OSError:  # it has ended, or is another user's
            continue
    return False


def contents(place: Path, command: Command) -> dict[str, str]:
    """Return the SHA-256 of the files under final names."""
    paths = {path for pattern in command.finals for path in place.glob(pattern)}
    return {
        path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
        if not path.name.startswith(".")
    }


def misnamed(place: Path, command: Command, expected: dict[str, str]) -> list[str]:
    """Return what has a final name and isn't what that stands for.

    Blobs are named by their content: a study's times differ, and so may the blob's name.
    """
    found = contents(place, command)
    wrong = [name for name, digest in found.items() if not is_right(name, digest, expected)]
    return [f"{name} isn't what it is called" for name in wrong]


def is_right(name: str, digest: str, expected: dict[str, str]) -> bool:
    return expected.get(name) == digest or name == f"cache/blobs/{digest}"


def unlike(place: Path, command: Command, expected: dict[str, str]) -> list[str]:
    """Return what a whole run gives otherwise than the undisturbed one."""
    missing = expected.keys() - contents(place, command).keys()
    lines = (f"{name} is missing" for name in sorted(missing) if "blobs" not in name)
    return [*misnamed(place, command, expected), *lines]


def left(place: Path) -> set[str]:
    """Return hidden files, and what is in the folder for temporary ones.

    A library may leave something there in each run: what the undisturbed one left is usual.
    """
    paths = [*place.rglob(".*"), *(place / "temporary").iterdir()]
    return {path.relative_to(place).as_posix() for path in paths}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("--demo", type=Path, help="demo.float32.onnx, to spare its conversion")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--reruns", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
