"""Make model files as people have them, each with its own framework's answers on its own pixels.

One run makes the files of one program, in the environment that it runs in:

    python make_model_files.py OUT                       TensorFlow 2.12 or 2.15 (Keras 2)
    python make_model_files.py OUT --program tfmot       TensorFlow 2.15, tf_keras 2.15, tfmot
    python make_model_files.py OUT --program tf_keras    tf_keras beside TensorFlow 2.16+
    python make_model_files.py OUT --program keras3      Keras 3 with TensorFlow
    python make_model_files.py OUT --program jax         Keras 3 with JAX, without TensorFlow
    python make_model_files.py OUT --program torch       Keras 3 with PyTorch, likewise

tfmot is tensorflow-model-optimization. All need Pillow. OUT/images holds the
class folders that all programs share. What is there already is not made again. With `--commit` it
makes nothing, and copies to `models/people/` what only the old programs can make, if it is small.
"""

import argparse
import hashlib
import logging
import os
import shutil
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import people_images
import people_tfmot
from people_files import IMAGES, PIXELS, Described, read_all
from people_pixels import Floats, Kit, Pixels, load
from people_shapes import SHAPES, Saved

EPOCHS, SEED = 12, 3
POSITIVE = people_images.CLASSES.index("square")
COMMITTED = Path(__file__).parents[1] / "models" / "people"
# Those that the tests' own environment hasn't; of the other backends' files small ones do.
OLD, LARGEST = ("tf2.12", "tf2.15", "tfmot"), 125_000
BACKENDS, SMALL = ("jax", "torch"), 60_000
LABELS = {"labels.txt": people_images.CLASSES, "binary.txt": ("other", "square")}


def main() -> None:
    arguments = _arguments()
    out = arguments.out
    if arguments.commit:
        _commit(out)
        return
    people_images.write(out / IMAGES)
    for name, classes in LABELS.items():
        (out / name).write_text("".join(f"{each}\n" for each in classes))
    kit = _kit(arguments.program)
    for shape in arguments.only or SHAPES:
        if _missing(kit, shape, out):
            _make(kit, shape, SHAPES[shape], out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("--program", default="tensorflow", choices=PROGRAMS)
    parser.add_argument("--only", nargs="+", choices=list(SHAPES), metavar="SHAPE")
    parser.add_argument("--commit", action="store_true")
    return parser.parse_args()


def _commit(out: Path) -> None:
    """Put the small files of the old programs, with what belongs to them, in the repository."""
    shutil.rmtree(COMMITTED, ignore_errors=True)
    (COMMITTED / PIXELS).mkdir(parents=True)
    for each in read_all(out):
        files = [name for name in (each.file, each.weights) if name]
        size = sum((out / name).stat().st_size for name in files)
        if (out / each.file).is_file() and size <= _most(each.program.split()[0]):
            beside = (f"{each.name}.json", f"{each.name}.npz", each.pixels, each.labels)
            for name in (*files, *beside):
                shutil.copy(out / name, COMMITTED / name)


def _most(program: str) -> int:
    """Return the size in bytes up to which a program's file is committed."""
    return LARGEST if program in OLD else SMALL if program in BACKENDS else 0


# What is chosen -> the module whose Keras it is, and Keras's backend.
PROGRAMS = {
    "tensorflow": ("tensorflow.keras", "tensorflow"),
    "tf_keras": ("tf_keras", "tensorflow"),
    "tfmot": ("tf_keras", "tensorflow"),
    "keras3": ("keras", "tensorflow"),
    "jax": ("keras", "jax"),
    "torch": ("keras", "torch"),
}


def _kit(chosen: str) -> Kit:
    """Import a program quietly; `tensorflow` is named by its version, as tf2.15."""
    module, backend = PROGRAMS[chosen]
    os.environ |= {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    warnings.simplefilter("ignore")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    tf = import_module("tensorflow") if backend == "tensorflow" else None
    keras = tf.keras if chosen == "tensorflow" and tf else import_module(module)
    name = chosen
    if chosen == "tensorflow" and tf:
        name = "tf" + ".".join(tf.__version__.split(".")[:2])
    of = "keras" if chosen == "tensorflow" else module
    return Kit(name, keras, import_module(of).__version__, tf)


def _missing(kit: Kit, shape: str, out: Path) -> list[str]:
    """Return the containers of a net that an earlier run did not make."""
    wanted = SHAPES[shape].containers(kit.program)
    return [each for each in wanted if not (out / f"{shape}-{kit.program}-{each}.json").exists()]


def _make(kit: Kit, shape: str, saved: Saved, out: Path) -> None:
    """Train one net and save it in each container, with the answers of what was saved."""
    kit.keras.backend.clear_session()
    kit.keras.utils.set_random_seed(SEED)
    values, fed, names = load(kit, saved.pixels, out / IMAGES)
    model = _trained(kit, shape, saved, fed, names)
    asked = [names.index(name) for name in people_images.judged(out / IMAGES)]
    pixels = _store(saved.pixels, values[asked], out)
    for container in _missing(kit, shape, out):
        name = f"{shape}-{kit.program}-{container}"
        files = CONTAINERS[container](kit, model, out / name)
        again = _read(kit, shape, container, model, files)
        answers = _probabilities(saved, again, fed[asked])
        described = _described(kit, shape, saved, container, files, pixels)
        described.write(out, answers)
        _report(name, answers, files)


def _trained(kit: Kit, shape: str, saved: Saved, fed: Floats, names: list[str]) -> Any:
    keras = kit.keras
    model = saved.wrap(kit, saved.build(kit, saved.pixels.shape))
    _hasten(model)
    classes = np.array([people_images.CLASSES.index(name.split("/")[0]) for name in names])
    losses = {
        "softmax": "sparse_categorical_crossentropy",
        "sigmoid": "binary_crossentropy",
        "logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    }
    wanted: Any = classes
    loss: Any = losses[saved.kind]
    if saved.kind == "sigmoid":
        alone = model.output_shape[-1] == 1
        wanted = (
            (classes == POSITIVE)[:, None] if alone else np.eye(len(people_images.CLASSES))[classes]
        )
        wanted = wanted.astype(np.float32)
    if saved.output:
        wanted = {saved.output: classes, "place": np.zeros((len(classes), 4), np.float32)}
        loss = {saved.output: loss, "place": "mse"}
    model.compile(keras.optimizers.Adam(saved.rate), loss=loss)
    more = people_tfmot.callbacks(shape)
    model.fit(fed, wanted, epochs=EPOCHS, batch_size=16, verbose=0, callbacks=more)
    return saved.strip(kit, model)


def _hasten(model: Any) -> None:
    """Let batch norms follow within few steps, at every depth."""
    for layer in getattr(model, "layers", ()):
        _hasten(layer)
        if hasattr(layer, "momentum"):
            layer.momentum = 0.8


def _whole(kit: Kit, model: Any, stem: Path, suffix: str) -> list[Path]:
    path = stem.with_name(f"{stem.name}.{suffix}")
    model.save(str(path))
    return [path]


def _json(kit: Kit, model: Any, stem: Path) -> list[Path]:
    path = stem.with_name(f"{stem.name}.model.json")
    path.write_text(model.to_json())
    weights = stem.with_name(f"{stem.name}.weights.h5")
    model.save_weights(str(weights))
    return [path, weights]


def _saved_model(kit: Kit, model: Any, stem: Path) -> list[Path]:
    if kit.is_keras_3:
        model.export(str(stem), verbose=False)
    else:
        model.save(str(stem), save_format="tf")
    return [stem]


CONTAINERS: dict[str, Any] = {
    "h5": lambda kit, model, stem: _whole(kit, model, stem, "h5"),
    "keras": lambda kit, model, stem: _whole(kit, model, stem, "keras"),
    "json": _json,
    "saved": _saved_model,
}


def _read(kit: Kit, shape: str, container: str, model: Any, files: list[Path]) -> Any:
    """Return what the program itself reads from the file; an export has no reader in Keras 3."""
    models = kit.keras.models
    if container == "json":
        again = models.model_from_json(files[0].read_text())
        again.load_weights(str(files[1]))
        return again
    if container == "saved" and (kit.is_keras_3 or shape == "lambda"):
        return model
    with people_tfmot.scope(shape):
        return models.load_model(str(files[0]), compile=False)


def _probabilities(saved: Saved, model: Any, fed: Floats) -> Floats:
    """Return float32 [images, classes] after the user's softmax; one number becomes 1 - p, p."""
    given = model.predict(fed, verbose=0)
    if saved.output:
        given = given[model.output_names.index(saved.output)] if isinstance(given, list) else given
        given = given[saved.output] if isinstance(given, dict) else given
    given = np.asarray(given, np.float32)
    if saved.kind == "logits":
        powers = np.exp(given - given.max(axis=-1, keepdims=True))
        given = powers / powers.sum(axis=-1, keepdims=True)
    return np.concatenate([1 - given, given], axis=-1) if given.shape[-1] == 1 else given


def _store(spec: Pixels, values: Floats, out: Path) -> str:
    """Write the asked images in bytes, uint8 where exact, named by their content; return where."""
    height, width = spec.size
    values = values.reshape(len(values), height, width, -1)
    exact = values.astype(np.uint8)
    stored = exact if (exact == values).all() else values
    digest = hashlib.sha256(stored.tobytes()).hexdigest()[:8]
    place = f"{PIXELS}/{spec.preprocess}-{spec.colour}-{height}x{width}-{digest}.npz"
    (out / PIXELS).mkdir(exist_ok=True)
    np.savez_compressed(out / place, values=stored)
    return place


def _described(
    kit: Kit, shape: str, saved: Saved, container: str, files: list[Path], pixels: str
) -> Described:
    spec, alone = saved.pixels, saved.kind == "sigmoid" and shape != "multi_label"
    # A graph doesn't tell that it begins with a normalisation: its user does.
    untold = (
        "raw" if container == "saved" and spec.preprocess not in ("teachable_machine",) else None
    )
    beside = {} if kit.tf is None else {"TensorFlow": kit.tf.__version__}
    versions = {"Keras": kit.version, **beside}
    return Described(
        name=f"{shape}-{kit.program}-{container}",
        file=files[0].name,
        shape=shape,
        container=container,
        program=f"{kit.program} ({', '.join(f'{k} {v}' for k, v in versions.items())})",
        input_shape=spec.shape,
        preprocess=spec.preprocess,
        normalisation=spec.normalisation or untold,
        colour=None if spec.colour == "rgb" else spec.colour,
        labels="binary.txt" if alone else "labels.txt",
        output=saved.output,
        weights=files[1].name if len(files) > 1 else None,
        kind=saved.kind,
        pixels=pixels,
        images=tuple(people_images.judged(pixels_folder(files))),
        limit=saved.limit,
    )


def pixels_folder(files: list[Path]) -> Path:
    """Return the folder of images beside a model file."""
    return files[0].parent / IMAGES


def _report(name: str, answers: Floats, files: list[Path]) -> None:
    """Say how sure and how varied the answers are, and the size in kB."""
    size = sum(path.stat().st_size for path in files if path.is_file()) / 1e3
    sure, varied = answers.max(axis=-1).mean(), answers.std(axis=0).max()
    note = "" if sure < 0.97 and varied > 0.05 else "   SATURATED or CONSTANT"
    sys.stdout.write(f"{name:45} sure {sure:.2f} varied {varied:.2f} {size:.0f} kB{note}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
