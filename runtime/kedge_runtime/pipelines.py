"""The pipelines that people train with: how each brings an image to the network's size.

A pipeline is a record, so that the contract can name it and the device can do the same. Each is
held against the library itself (tests/test_pipelines.py); how far they differ is in
docs/preprocessing.md.
"""

import difflib
import re
from dataclasses import dataclass, replace
from typing import Any, Final

from kedge_runtime.contract import Colour, Fit, Geometry, Orientation, Resize


@dataclass(frozen=True)
class Pipeline:
    """One way to load images. `what`: in the words of those who use it.

    `normalisation`: the name that goes with it, empty where the model or the user must tell;
    `colour`: the order of the channels that it gives.
    """

    what: str
    resize: Resize
    fit: Fit = "stretch"
    crop_fraction: float = 1.0
    orientation: Orientation = "ignore"
    scaled_decode: bool = False
    normalisation: str = ""
    colour: Colour = "rgb"

    def geometry(self, height: int, width: int, **given: Any) -> Geometry:
        """Return the geometry for a size in pixels; `given`: fields of it that were told apart."""
        known = Geometry(
            height,
            width,
            self.resize,
            self.fit,
            self.crop_fraction,
            self.orientation,
            self.scaled_decode,
        )
        return replace(known, **given)


PIPELINES: Final[dict[str, Pipeline]] = {
    "load_img": Pipeline("keras.utils.load_img(target_size=...)", "nearest"),
    "flow_from_directory": Pipeline("ImageDataGenerator.flow_from_directory", "nearest"),
    "image_dataset": Pipeline("keras.utils.image_dataset_from_directory", "tf_bilinear"),
    "tf_resize": Pipeline("tf.io.decode_image, tf.image.resize", "tf_bilinear"),
    "tf_hub": Pipeline(
        "tf.image.convert_image_dtype, tf.image.resize", "tf_bilinear", normalisation="unit"
    ),
    "torchvision": Pipeline(
        "Resize(256), CenterCrop(224), ToTensor, Normalize",
        "pillow_bilinear",
        "torchvision_crop",
        crop_fraction=0.875,
        normalisation="torch",
    ),
    "teachable_machine": Pipeline(
        "ImageOps.fit(image, size, LANCZOS), x / 127.5 - 1",
        "pillow_lanczos",
        "pillow_fit",
        normalisation="tf",
    ),
    "pillow": Pipeline("Image.open(...).resize(size)", "pillow_bicubic"),
    "opencv": Pipeline(
        # INTER_LINEAR is up to two steps off INTER_LINEAR_EXACT, one off TensorFlow's.
        "cv2.resize(cv2.imread(...), size)",
        "tf_bilinear",
        orientation="exif",
        colour="bgr",
    ),
    "imagenet": Pipeline(
        "the centre 87.5 %, as ImageNet models are evaluated",
        "pyramid",
        "crop",
        crop_fraction=0.875,
        orientation="exif",
        scaled_decode=True,
    ),
}


def meant(word: str) -> list[str]:
    """Return the pipelines that a word may stand for: a function or module that the pipeline calls,
    as `image_dataset_from_directory`, a part of a name, or a misspelled one.
    """
    if found := [name for name, known in PIPELINES.items() if word in _called(known.what)]:
        return found
    asked = word.lower()
    parts = [name for name in PIPELINES if name in asked or (len(asked) > 2 and asked in name)]
    return parts or difflib.get_close_matches(asked, PIPELINES, n=1)


def _called(code: str) -> set[str]:
    """Return the names with a dot or a call in a piece of code, and their first and last parts."""
    dotted = re.findall(r"\w+(?:\.\w+)+|\w+(?=\()", code)
    return {part for name in dotted for part in (name, name.split(".")[0], name.split(".")[-1])}
