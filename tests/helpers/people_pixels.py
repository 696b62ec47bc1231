"""The pipelines that people load images with, each in the words of its own library.

`load(kit, spec, folder)` returns what the user's model is fed. It also returns the same in bytes,
before the user's normalisation: those are stored, once for all models with the same pipeline.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Floats = NDArray[np.float32]
BATCH = 32


@dataclass(frozen=True)
class Kit:
    """A program: its name, its Keras, and its TensorFlow (None where Keras has another backend)."""

    program: str
    keras: Any
    version: str
    tf: Any

    @property
    def is_keras_3(self) -> bool:
        """Whether the layers are those of Keras 3."""
        return self.version.startswith("3")


@dataclass(frozen=True)
class Pixels:
    """What the user would say of the pixels, in kedge's words; None where the model tells.

    `shape`: of one input of the model. `colour`: `rgb`, `bgr` or `grey`.
    """

    preprocess: str
    normalisation: str | None = None
    colour: str = "rgb"
    shape: tuple[int, ...] = (32, 32, 3)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width; (784,) is 28 by 28."""
        return (28, 28) if len(self.shape) == 1 else (self.shape[0], self.shape[1])


def normalised(values: Floats, name: str | None) -> Floats:
    """Return bytes as the named normalisation gives them; `caffe` takes RGB and gives BGR."""
    return NORMALISATIONS[name or "raw"](values.astype(np.float32))


def _caffe(values: Floats) -> Floats:
    return np.asarray(values[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32))


def _torch(values: Floats) -> Floats:
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    return np.asarray((values / np.float32(255) - mean) / std)


NORMALISATIONS: dict[str, Callable[[Floats], Floats]] = {
    "raw": lambda values: values,
    "unit": lambda values: values / np.float32(255),
    "tf": lambda values: values / np.float32(127.5) - np.float32(1),
    "caffe": _caffe,
    "torch": _torch,
}
# What a pipeline does beside its geometry, without being asked.
OF_PIPELINE = {"teachable_machine": "tf", "tf_hub": "unit"}


def load(kit: Kit, spec: Pixels, folder: Path) -> tuple[Floats, Floats, list[str]]:
    """Return bytes and fed tensors, [n, *shape], of all images of `folder`, and their names."""
    files = sorted(folder.glob("*/*.*"))
    fed = PIPELINES[spec.preprocess](kit, spec, folder, files).astype(np.float32)
    name = spec.normalisation or OF_PIPELINE.get(spec.preprocess)
    values = _in_bytes(fed, name)
    difference = np.abs(normalised(values, name) - fed).max()
    if difference > 2e-6 * max(1.0, float(np.abs(fed).max())):
        raise AssertionError(f"{spec}: {name} doesn't give what the model was fed: {difference}")
    names = [path.relative_to(folder).as_posix() for path in files]
    return values.reshape(-1, *spec.shape), fed.reshape(-1, *spec.shape), names


def _in_bytes(fed: Floats, name: str | None) -> Floats:
    """Undo a normalisation; what is within 1e-3 of a whole byte was one."""
    ends = [normalised(np.full(3, each, np.float32), name).astype(np.float64) for each in (0, 255)]
    # Grey has one channel or none, and normalisations that treat channels alike.
    zero, full = ends if fed.shape[-1] == 3 else [end[0] for end in ends]
    values = (fed - zero) / (full - zero) * 255
    values = values[..., ::-1] if name == "caffe" else values
    whole = values.round()
    return np.asarray(whole if np.abs(values - whole).max() < 1e-3 else values, np.float32)


def _preprocess_input(kit: Kit, spec: Pixels, values: Floats) -> Floats:
    """Normalise as Keras users write it."""
    applications = kit.keras.applications
    if spec.normalisation == "tf":
        return np.asarray(applications.mobilenet_v2.preprocess_input(values.copy()))
    if spec.normalisation == "caffe":
        return np.asarray(applications.resnet50.preprocess_input(values.copy()))
    if spec.normalisation == "torch":
        return np.asarray(applications.densenet.preprocess_input(values.copy()))
    return values / 255.0 if spec.normalisation == "unit" else values


def _load_img(kit: Kit, spec: Pixels, folder: Path, files: list[Path]) -> Floats:
    utils = kit.keras.utils
    mode = "grayscale" if spec.colour == "grey" else "rgb"
    images = [utils.load_img(file, color_mode=mode, target_size=spec.size) for file in files]
    values = np.stack([utils.img_to_array(image) for image in images])
    return _preprocess_input(kit, spec, values)


def _image_dataset(kit: Kit, spec: Pixels, folder: Path, files: list[Path]) -> Floats:
    dataset = kit.keras.utils.image_dataset_from_directory(
        str(folder),
        image_size=spec.size,
        batch_size=BATCH,
        shuffle=False,
        color_mode="grayscale" if spec.colour == "grey" else "rgb",
    )
    if dataset.file_paths != [str(file) for file in files]:
        raise AssertionError("image_dataset_from_directory has another order of files")
    if spec.normalisation == "unit":
        rescale = kit.keras.layers.Rescaling(1.0 / 255)
        dataset = dataset.map(lambda images, labels: (rescale(images), labels))
    elif spec.normalisation == "tf":
        preprocess = kit.keras.applications.mobilenet_v2.preprocess_input
        dataset = dataset.map(lambda images, labels: (preprocess(images), labels))
    return np.concatenate([images.numpy() for images, _ in dataset])


def _flow_from_directory(kit: Kit, spec: Pixels, folder: Path, files: list[Path]) -> Floats:
    """Only Keras 2 still documents it; TensorFlow keeps Keras 3's."""
    of = kit.tf.keras if kit.is_keras_3 else kit.keras
    generator = of.preprocessing.image.ImageDataGenerator(rescale=1.0 / 255)
    flow = generator.flow_from_directory(
        str(folder), target_size=spec.size, batch_size=len(files), shuffle=False
    )
    if flow.filepaths != [str(file) for file in files]:
        raise AssertionError("flow_from_directory has another order of files")
    return np.asarray(flow[0][0])


def _tf_resize(kit: Kit, spec: Pixels, folder: Path, files: list[Path]) -> Floats:
    tf = kit.tf

    def read(file: Path) -> Any:
        image = tf.io.decode_image(tf.io.read_file(str(file)), channels=3, expand_animations=False)
        return tf.image.resize(image, spec.size)

    values = np.stack([read(file).numpy() for file in files])
    return _preprocess_input(kit, spec, values)


def _tf_hub(kit: Kit, spec: Pixels, folder: Path, files: list[Path]) -> Floats:
    tf = kit.tf

    def read(file: Path) -> Any:
        image = tf.io.decode_image(tf.io.read_file(str(file)), channels=3, expand_animations=False)
        return tf.image.resize(tf.image.convert_image_dtype(image, tf.float32), spec.size)

    return np.stack([read(file).numpy() for file in files])


def _teachable_machine(kit: Kit, spec: Pixels, folder: Path, files: list[Path]) -> Floats:
    """Do as the Python snippet of the export does, in its words."""
    rows = []
    for file in files:
        image = Image.open(file).convert("RGB")
        image = ImageOps.fit(image, spec.size[::-1], Image.Resampling.LANCZOS)
        rows.append((np.asarray(image).astype(np.float32) / 127.5) - 1)
    return np.stack(rows)


def _pillow(kit: Kit, spec: Pixels, folder: Path, files: list[Path]) -> Floats:
    mode = "L" if spec.colour == "grey" else "RGB"
    images = [Image.open(file).convert(mode).resize(spec.size[::-1]) for file in files]
    return _preprocess_input(kit, spec, np.stack([np.asarray(each, np.float32) for each in images]))


def _opencv(kit: Kit, spec: Pixels, folder: Path, files: list[Path]) -> Floats:
    """Do as scripts do: imread, resize, and the channels stay BGR unless someone turns them."""
    cv2 = import_module("cv2")
    rows: list[Any] = [cv2.resize(cv2.imread(str(file)), spec.size[::-1]) for file in files]
    if spec.colour == "rgb":
        rows = [cv2.cvtColor(row, cv2.COLOR_BGR2RGB) for row in rows]
    return _preprocess_input(kit, spec, np.stack(rows).astype(np.float32))


PIPELINES: dict[str, Callable[[Kit, Pixels, Path, list[Path]], Floats]] = {
    "load_img": _load_img,
    "image_dataset": _image_dataset,
    "flow_from_directory": _flow_from_directory,
    "tf_resize": _tf_resize,
    "tf_hub": _tf_hub,
    "teachable_machine": _teachable_machine,
    "pillow": _pillow,
    "opencv": _opencv,
}
