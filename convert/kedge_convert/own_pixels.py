"""Load images as the user's own pipeline does: by Keras, TensorFlow, Pillow or OpenCV.

The parity check gives the float model and the artefact the same pixels, kedge's. Where these aren't
the pixels of training, both answer alike and wrongly. So the float model also answers on pixels
that no part of kedge's preprocessing made.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Geometry, Input, Normalisation

# Returns an image at the network's size: float32 [height, width, channels], 0 to 255, in RGB or
# grey.
Loader = Callable[[Path, Geometry, bool], Floats]

_FILTERS = {
    "nearest": "NEAREST",
    "pillow_bilinear": "BILINEAR",
    "pillow_bicubic": "BICUBIC",
    "pillow_lanczos": "LANCZOS",
    "pillow_box": "BOX",
    "pillow_hamming": "HAMMING",
}
_TF_METHODS = {"nearest": "nearest", "bilinear": "bilinear", "tf_bilinear": "bilinear"}


def own_tensors(paths: Sequence[Path], spec: Input) -> Iterator[Floats] | None:
    """Yield the network's input, float32 [1, h, w, channels], as the pipeline's library loads it.

    None where no library loads images so: kedge's own geometries, and letterbox.
    """
    loader = _loader(spec)
    if loader is None:
        return None
    grey = spec.normalisation.colour == "grey"
    return (_normalised(loader(path, spec.geometry, grey), spec.normalisation) for path in paths)


def library(spec: Input) -> str:
    """Return the name of the library that loads an input's images, "" where there is none."""
    loader = _loader(spec)
    return "" if loader is None else LIBRARIES[loader]


def _loader(spec: Input) -> Loader | None:
    """Return the loader of an input's images, None where no library does so."""
    loader = LOADERS.get(spec.pipeline) or _by_geometry(spec.geometry)
    return loader if loader and _known(spec.geometry, loader) else None


def _by_geometry(geometry: Geometry) -> Loader | None:
    """Return the loader for a geometry, where only the parts of a pipeline were given."""
    if geometry.resize in _FILTERS:
        return _keras if geometry.fit == "stretch" else _pillow
    return _tensorflow if geometry.resize in _TF_METHODS else None


def _known(geometry: Geometry, loader: Loader) -> bool:
    """Whether a library has the geometry, which the user may have changed."""
    if loader is _opencv:
        return geometry.fit == "stretch" and geometry.resize == "tf_bilinear"
    if geometry.orientation == "exif":
        return False
    if loader is _keras:
        return geometry.fit == "stretch" and geometry.resize in _FILTERS
    if loader is _tensorflow:
        return geometry.fit in ("stretch", "keras_crop") and geometry.resize in _TF_METHODS
    fits = ("stretch", "pillow_fit", "torchvision_crop")
    return geometry.fit in fits and geometry.resize in _FILTERS


def _normalised(pixels: Floats, normalisation: Normalisation) -> Floats:
    ordered = pixels[..., ::-1] if normalisation.colour == "bgr" else pixels
    mean, std = np.array([normalisation.mean, normalisation.std], np.float32)
    values = (ordered / np.float32(normalisation.divisor) - mean) / std
    return np.asarray(values[None], np.float32)


def _keras(path: Path, geometry: Geometry, grey: bool) -> Floats:
    """As `load_img` and `ImageDataGenerator` do."""
    utils = require("keras").utils
    size = geometry.height, geometry.width
    loaded = utils.load_img(
        path,
        color_mode="grayscale" if grey else "rgb",
        target_size=size,
        interpolation=_FILTERS[geometry.resize].lower(),
    )
    return np.asarray(utils.img_to_array(loaded), np.float32)


def _tensorflow(path: Path, geometry: Geometry, grey: bool) -> Floats:
    """As `image_dataset_from_directory` does, and scripts with tf.io and tf.image."""
    tf = require("tensorflow")
    content = tf.io.read_file(str(path))
    image = tf.io.decode_image(content, channels=1 if grey else 3, expand_animations=False)
    size, method = (geometry.height, geometry.width), _TF_METHODS[geometry.resize]
    if geometry.fit == "keras_crop":
        smart = require("keras").preprocessing.image.smart_resize
        return np.asarray(smart(image, size, interpolation=method), np.float32)
    return np.asarray(tf.image.resize(image, size, method=method), np.float32)


def _pillow(path: Path, geometry: Geometry, grey: bool) -> Floats:
    """As `Image.open` and `resize`, `ImageOps.fit`, or torchvision's transforms of them do."""
    images, ops = require("PIL.Image"), require("PIL.ImageOps")
    method = images.Resampling[_FILTERS[geometry.resize]]
    size = geometry.width, geometry.height
    with images.open(path) as opened:
        image = opened.convert("L" if grey else "RGB")
    if geometry.fit == "pillow_fit":
        image = ops.fit(image, size, method)
    elif geometry.fit == "torchvision_crop":
        image = _centre(_short_side(image, geometry, method), size)
    else:
        image = image.resize(size, method)
    return np.asarray(image, np.float32).reshape(size[1], size[0], -1)


def _short_side(image: Any, geometry: Geometry, method: Any) -> Any:
    """Resize as torchvision's `Resize(int)`: the short side to a size, the long one cut off."""
    short = round(min(geometry.height, geometry.width) / geometry.crop_fraction)
    width, height = image.size
    long = int(short * max(width, height) / min(width, height))
    return image.resize((short, long) if width <= height else (long, short), method)


def _centre(image: Any, size: tuple[int, int]) -> Any:
    """Cut as torchvision's `CenterCrop`."""
    left, top = (round((whole - part) / 2.0) for whole, part in zip(image.size, size, strict=True))
    return image.crop((left, top, left + size[0], top + size[1]))


def _opencv(path: Path, geometry: Geometry, grey: bool) -> Floats:
    """As `cv2.imread` and `cv2.resize` do."""
    cv2 = require("cv2")
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    sized = cv2.resize(image, (geometry.width, geometry.height))
    ordered = sized[..., None] if grey else cv2.cvtColor(sized, cv2.COLOR_BGR2RGB)
    return np.asarray(ordered, np.float32)


LOADERS: dict[str, Loader] = {
    "load_img": _keras,
    "flow_from_directory": _keras,
    "image_dataset": _tensorflow,
    "tf_resize": _tensorflow,
    "tf_hub": _tensorflow,
    "torchvision": _pillow,
    "teachable_machine": _pillow,
    "pillow": _pillow,
    "opencv": _opencv,
}
LIBRARIES: dict[Loader, str] = {
    _keras: "Keras",
    _tensorflow: "TensorFlow",
    _pillow: "Pillow",
    _opencv: "OpenCV",
}
