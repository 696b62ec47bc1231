"""Sort the images of a folder into folders named by what is in them.

    python classify_folder.py flowers.int8.tflite photos/ sorted/

It needs numpy, OpenCV and LiteRT, as a Raspberry Pi has them: no TensorFlow. Images are copied.
Those that the model is not sure of go to `unknown`.
"""

import argparse
import shutil
from pathlib import Path

from kedge_runtime import Classifier, ImageError, KedgeError, Rule

SURE = Rule(min_confidence=0.6)


def sort(model: Path, images: Path, out: Path) -> None:
    """Copy each image to a folder with the name of its class."""
    paths = sorted(path for path in images.iterdir() if path.is_file())
    with Classifier.open(model) as classifier:
        print(classifier)
        answers = classifier.each(paths, rule=SURE)
        for path, answer in zip(paths, answers, strict=True):
            if isinstance(answer, ImageError):
                print(f"skipped: {answer}")
                continue
            folder = out / (answer.label or "unknown").replace("/", "_")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)
            print(f"{path.name}: {answer}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help="a .tflite or .onnx file of kedge convert")
    parser.add_argument("images", type=Path, help="a folder")
    parser.add_argument("out", type=Path, help="the folder to make")
    given = parser.parse_args()
    try:
        sort(given.model, given.images, given.out)
    except KedgeError as error:
        parser.error(str(error))
