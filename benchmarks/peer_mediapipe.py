"""MediaPipe's ImageClassifier on images, for `peers.py`: runs in the peers' environment.

python -I peer_mediapipe.py MODEL.tflite IMAGES.npz
"""

import json
import sys

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions
from mediapipe.tasks.python.components.containers.rect import RectF
from mediapipe.tasks.python.vision import ImageClassifier, ImageClassifierOptions
from mediapipe.tasks.python.vision.core.image_processing_options import ImageProcessingOptions


def main(model: str, file: str) -> None:
    arrays = np.load(file)
    sides = ("left", "top", "right", "bottom")
    regions = [RectF(**dict(zip(sides, each, strict=True))) for each in arrays["regions"].tolist()]
    options = ImageClassifierOptions(BaseOptions(model_asset_path=model))
    answers = []
    with ImageClassifier.create_from_options(options) as classifier:
        for i in range(len(arrays.files) - 1):
            pixels = np.ascontiguousarray(arrays[f"image_{i}"])
            image = mediapipe.Image(mediapipe.ImageFormat.SRGB, pixels)
            found = classifier.classify(image, *map(ImageProcessingOptions, regions[i : i + 1]))
            answers.append([_plain(each) for each in found.classifications[0].categories])
    print(json.dumps(answers))


def _plain(category):
    return {"index": category.index, "name": category.category_name, "score": category.score}


if __name__ == "__main__":
    main(*sys.argv[1:])
