"""Is `nearest` on this OpenCV what keras.utils.load_img(target_size=) gives, byte for byte?

load_img is Pillow's `open`, `convert("RGB")` and `resize(..., NEAREST)` and nothing else, so this
needs numpy, OpenCV, Pillow and neither Keras nor an installed kedge: it runs wherever an OpenCV is
to be tried. Exit code 1 when one image differs.

    pip install opencv-python-headless==4.6.0.66 'numpy<2' pillow
    python benchmarks/nearest_equality.py --images DIR --limit 500
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import cv2
import numpy as np
import PIL
from PIL import Image

HERE = Path(__file__).parent
# Before kedge is imported: in an environment of another OpenCV nothing of it is installed.
sys.path.insert(0, str(HERE.parent / "runtime"))

from kedge_runtime.artefact.contract import Geometry, Input, Normalisation  # noqa: E402
from kedge_runtime.image.preprocessing import Preprocessor  # noqa: E402

SIZES = ((224, 224), (299, 299), (192, 97))


def main() -> int:
    arguments = _arguments()
    photos = sorted(p for p in arguments.images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    photos = photos[: arguments.limit]
    equal = sum(all(is_equal(photo, size) for size in SIZES) for photo in photos)
    report = {
        "images": len(photos),
        "equal": equal,
        "sizes": SIZES,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }
    name = f"nearest-equality-opencv-{cv2.__version__}-{platform.machine().replace('_', '-')}"
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    line = f"OpenCV {cv2.__version__}: {equal} of {len(photos)} images equal at {len(SIZES)} sizes"
    (arguments.results / f"{name}.md").write_text(f"# nearest and load_img\n\n{line}.\n")
    print(line)
    return 0 if photos and equal == len(photos) else 1


def is_equal(photo: Path, size: tuple[int, int]) -> bool:
    """Compare the runtime's tensor of bytes with Pillow's for one height and width."""
    with Image.open(photo) as image:
        expected = np.asarray(image.convert("RGB").resize(size[::-1], Image.Resampling.NEAREST))
    geometry = Geometry(*size, "nearest", "stretch", orientation="ignore", scaled_decode=False)
    plan = Preprocessor(Input(geometry, Normalisation()))
    return np.array_equal(plan.tensor(plan.read(photo))[0], expected)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEGs")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
