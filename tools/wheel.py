"""Build the wheel and the source archive into a folder, and check them.

    python tools/wheel.py DIR

validate-pyproject reads what they are made from, check-wheel-contents what is in the wheel. The
wheel is made from the archive, so an archive that lacks a file shows.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent


def main() -> int:
    """Write both files and print their names. Returns the first failed step's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder: Path = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _run(["validate_pyproject", "pyproject.toml"], TREE)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".building-") as scratch:
            built = [path.replace(folder / path.name) for path in _made(Path(scratch))]
    except subprocess.CalledProcessError as error:
        print(error.stdout, error.stderr, file=sys.stderr)
        return int(error.returncode)
    print(*built, sep="\n")
    return 0


def _made(scratch: Path) -> Iterable[Path]:
    """Return the archive and the wheel made from it. Raises CalledProcessError."""
    _run(["hatchling", "build", "-t", "sdist", "-d", str(scratch)], TREE)
    (archive,) = scratch.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(scratch, filter="data")
    tree = scratch / archive.name.removesuffix(".tar.gz")
    _run(["hatchling", "build", "-t", "wheel", "-d", str(scratch)], tree)
    (wheel,) = scratch.glob("*.whl")
    _run(["check_wheel_contents", str(wheel)], TREE)
    return archive, wheel


def _run(command: list[str], folder: Path) -> None:
    command = [sys.executable, "-m", *command]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(main())
