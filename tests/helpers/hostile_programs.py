"""SavedModels and graphs that do more than compute, made by TensorFlow itself.

Each maker takes a folder and the path of a file that the program is to write, or to read, and
returns what the user would name. The classifiers are of images (n, 8, 8, 3).
"""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert.toolkit import require
from kedge_runtime.output import quiet

SIDE = 8
Maker = Callable[[Path, Path], Path]


def tensorflow() -> Any:
    return require("tensorflow")


def classifier(images: Any) -> Any:
    """Return five logits of each image, [n, 5]."""
    tf = tensorflow()
    kernel = np.linspace(-1, 1, SIDE * SIDE * 3 * 5, dtype=np.float32).reshape(-1, 5)
    return tf.reshape(images, (-1, SIDE * SIDE * 3)) @ kernel


def saved(folder: Path, run: Callable[[Any], Any] = classifier, **kept: Any) -> Path:
    """Save a function of images as a SavedModel, with objects that it keeps."""
    tf = tensorflow()
    module = tf.Module()
    for name, value in kept.items():
        setattr(module, name, value)
    function = tf.function(run, autograph=False)
    module.run = function
    spec = tf.TensorSpec((None, SIDE, SIDE, 3), tf.float32)
    with quiet():
        signature = function.get_concrete_function(spec)
        tf.saved_model.save(module, str(folder / "it"), signatures=signature)
    return folder / "it"


def writes_when_loaded(folder: Path, victim: Path) -> Path:
    tf = tensorflow()

    class Initialised(tf.saved_model.experimental.TrackableResource):  # type: ignore[misc,name-defined]
        def _create_resource(self) -> Any:
            return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=(), shared_name="it")

        def _initialize(self) -> None:
            tf.io.write_file(str(victim), "written")

    with quiet():
        resource = Initialised()
        assert resource.resource_handle is not None
    if victim.exists():
        victim.unlink()  # by this process, which made it
    return saved(folder, resource=resource)


def writes_when_asked(folder: Path, victim: Path) -> Path:
    tf = tensorflow()

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def inner(images: Any) -> Any:
        with tf.control_dependencies([tf.io.write_file(str(victim), "written")]):
            return classifier(images)

    return saved(folder, lambda images: tf.identity(inner(images)))


def reads(folder: Path, victim: Path) -> Path:
    tf = tensorflow()

    def run(images: Any) -> Any:
        content = tf.io.decode_raw(tf.io.read_file(str(victim)), tf.uint8, fixed_length=5)
        return classifier(images) + tf.cast(content, tf.float32)

    return saved(folder, run)


def prints_to_a_file(folder: Path, victim: Path) -> Path:
    tf = tensorflow()

    def run(images: Any) -> Any:
        tf.print("written", output_stream=f"file://{victim}")
        return classifier(images)

    return saved(folder, run)


def saves_a_checkpoint(folder: Path, victim: Path) -> Path:
    tf = tensorflow()

    def run(images: Any) -> Any:
        save = tf.raw_ops.SaveV2(
            prefix=str(victim), tensor_names=["x"], shape_and_slices=[""], tensors=[images]
        )
        with tf.control_dependencies([save]):
            return classifier(images)

    return saved(folder, run)


def maps_a_file(folder: Path, victim: Path) -> Path:
    tf = tensorflow()

    def run(images: Any) -> Any:
        content = tf.raw_ops.ImmutableConst(
            dtype=tf.float32, shape=(5,), memory_region_name=str(victim)
        )
        return classifier(images) + content

    return saved(folder, run)


def runs_python(folder: Path, victim: Path) -> Path:
    tf = tensorflow()

    def run(images: Any) -> Any:
        written = tf.numpy_function(lambda x: x, [images], tf.float32)
        return classifier(tf.ensure_shape(written, images.shape))

    return saved(folder, run)


def has_a_table_from_a_file(folder: Path, victim: Path) -> Path:
    lookup = tensorflow().lookup
    lines = folder / "lines.txt"
    lines.write_text("one\ntwo\n")
    of_lines = lookup.TextFileIndex
    initialiser = lookup.TextFileInitializer(
        str(lines),
        tensorflow().int64,
        of_lines.LINE_NUMBER,
        tensorflow().string,
        of_lines.WHOLE_LINE,
    )
    return saved(folder, table=lookup.StaticHashTable(initialiser, ""))


def has_variables_elsewhere(folder: Path, victim: Path) -> Path:
    """A link in the folder reads any file that the user may read."""
    path = saved(folder, kept=tensorflow().Variable(1.0))
    (data,) = (path / "variables").glob("variables.data-*")
    shutil.move(data, victim)
    data.symlink_to(victim)
    return path


def of_tensorflow_1(folder: Path, victim: Path, main: bool) -> Path:
    """Return the older form: its loader runs `main_op`, and restores variables by the graph."""
    v1 = tensorflow().compat.v1
    with v1.Graph().as_default(), v1.Session() as session, quiet():
        images = v1.placeholder("float32", (None, SIDE, SIDE, 3))
        v1.get_variable("kept", initializer=1.0)
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver()
        write = v1.write_file(str(victim), "written")
        builder = v1.saved_model.Builder(str(folder / "it"))
        signature = v1.saved_model.predict_signature_def(
            {"images": images}, {"y": classifier(images)}
        )
        if not main:
            restore = session.graph.get_operation_by_name("save/restore_all")
            restore._add_control_input(write)
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature},
            main_op=write if main else None,
            saver=saver,
        )
        builder.save()
    return folder / "it"


def frozen(folder: Path, victim: Path) -> Path:
    v1 = tensorflow().compat.v1
    with v1.Graph().as_default() as graph:
        images = v1.placeholder("float32", (None, SIDE, SIDE, 3))
        with v1.control_dependencies([v1.write_file(str(victim), "written")]):
            v1.identity(classifier(images), name="logits")
        path = folder / "it.pb"
        path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


# What each does -> its maker, and what is said of it.
HOSTILE: dict[str, tuple[Maker, str]] = {
    "writes when loaded": (writes_when_loaded, "'WriteFile', which may write files"),
    "writes when asked": (writes_when_asked, "'WriteFile', which may write files"),
    "reads": (reads, "'ReadFile', which may read files"),
    "prints to a file": (prints_to_a_file, "'PrintV2', which may write files"),
    "saves a checkpoint": (saves_a_checkpoint, "'SaveV2', which may write files"),
    "maps a file": (maps_a_file, "'ImmutableConst', which may read files"),
    "runs Python": (runs_python, "'PyFunc', which runs Python"),
    "a table from a file": (
        has_a_table_from_a_file,
        "'InitializeTableFromTextFileV2', which may read files",
    ),
    "variables elsewhere": (has_variables_elsewhere, "which lies outside the folder"),
    "main_op": (partial(of_tensorflow_1, main=True), "'WriteFile', which may write files"),
    "restore_op": (partial(of_tensorflow_1, main=False), "'WriteFile', which may write files"),
    "a frozen graph": (frozen, "'WriteFile', which may write files"),
}
