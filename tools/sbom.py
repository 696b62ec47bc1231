"""Build the wheel, and write a CycloneDX bill of materials beside it.

    python tools/sbom.py DIR

The bill lists what keras-kedge[convert,onnx,signing] brings, at the versions of constraints.txt and
with their hashes, and the wheel with its own. cyclonedx-py writes it (keras-kedge[release]).
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pin

SHIPPED = ("device", "signing", "onnx", "convert")


def main() -> int:
    """Write both files and print their names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder: Path = parser.parse_args().folder.absolute()
    try:
        wheel = build(folder)
        bill = folder / f"{wheel.name}.cdx.json"
        bill.write_text(described(bill_of(SHIPPED), wheel), encoding="utf-8")
    except subprocess.CalledProcessError as error:
        print(error.stderr, file=sys.stderr)
        return 1
    print(wheel, bill, sep="\n")
    return 0


def build(folder: Path) -> Path:
    """Build the wheel into a folder; return it. Raises CalledProcessError."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".building-") as scratch:
        _run("hatchling", "build", "-t", "wheel", "-d", scratch)
        (built,) = Path(scratch).glob("*.whl")
        return built.replace(folder / built.name)


def bill_of(sections: tuple[str, ...]) -> str:
    """Return the bill of some sections of constraints.txt, as JSON. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as scratch:
        pins = Path(scratch) / "pins.txt"
        pins.write_text(pin.section_text(sections), encoding="utf-8")
        options = ["--pyproject", "pyproject.toml", "--output-reproducible", "--of", "JSON"]
        return _run("cyclonedx_py", "requirements", *options, str(pins))


def described(bill: str, wheel: Path) -> str:
    """Return the bill with the wheel's version and hash, which pyproject.toml doesn't know."""
    content = json.loads(bill)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    content["metadata"]["component"] |= {
        "version": wheel.name.split("-")[1],
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }
    return json.dumps(content, indent=2) + "\n"


def _run(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=pin.TREE, capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
