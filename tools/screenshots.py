"""Make the README's two images: the report of a build, and a contact sheet.

    python tools/screenshots.py [DIR]

Both show the demo on images that it draws itself. `kedge build` and `kedge classify` make them; a
headless Chromium takes the one of the report. Exit code 69 and one line where there is none.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from kedge_models.demo import pictograms

DOCS = Path(__file__).resolve().parent.parent / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h
DRAWN, SHOWN = 400, 8  # images in the report and on the sheet
WIDTH, HEIGHT = 1100, 860  # pixels of the report's beginning
COLOURS = 128

CONFIG = """\
[defaults]
targets = ["tflite:float32", "tflite:float16", "tflite:int8", "onnx:int8"]
images = "images"
gates = { min_agreement = 0.95 }

[[model]]
name = "demo"
"""


def main() -> int:
    """Write report.png and sheet.png. Raises CalledProcessError when a command fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=DOCS, metavar="DIR")
    folder: Path = parser.parse_args().folder.absolute()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("no Chromium on PATH, which draws the report: apt install chromium", file=sys.stderr)
        return UNAVAILABLE
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        desk = Path(scratch)
        report(desk, browser)
        sheet(desk)
        for name in ("report.png", "sheet.png"):
            shrink(desk / name, folder / name)
            print(folder / name)
    return 0


def report(desk: Path, browser: str) -> None:
    """Build the demo in a folder, and take a screenshot of its report there."""
    for path in pictograms.write(desk / "images", DRAWN, seed=16):
        # A folder named like the class gives the report its ground truth.
        folder = path.parent / path.name.partition("_")[0]
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    (desk / "kedge.toml").write_text(CONFIG, encoding="utf-8")
    kedge(desk, "build", "--cache", "cache")
    page = (desk / "out" / "report.html").as_uri()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    options += [f"--user-data-dir={desk / 'profile'}", f"--window-size={WIDTH},{HEIGHT}"]
    run([browser, *options, f"--screenshot={desk / 'report.png'}", page], desk)


def sheet(desk: Path) -> None:
    """Draw the contact sheet of a few images into a folder that has been built in."""
    images = [str(path) for path in pictograms.write(desk / "few", SHOWN, seed=3)]
    kedge(desk, "classify", "out/demo.int8.tflite", *images, "--top", "3", "--sheet", "sheet.png")


def kedge(desk: Path, *words: str) -> None:
    """Run a command of kedge in a folder."""
    run([sys.executable, "-m", "kedge_runtime", *words], desk)


def run(command: list[str], desk: Path) -> None:
    """Run a command in a folder, and show what it says where it fails."""
    done = subprocess.run(command, cwd=desk, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        done.check_returncode()


def shrink(source: Path, target: Path) -> None:
    """Save an image with few colours, which makes its file small."""
    with Image.open(source) as image:
        image.convert("RGB").quantize(COLOURS).save(target, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
