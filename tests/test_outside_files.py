"""Keras files that read other files when they are loaded, or unpack to far more than they are."""

import json
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kedge_convert.load.configuration import objects
from kedge_convert.load.registry import load
from kedge_convert.load.request import SourceRequest
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

LEGACY = Path(__file__).parent / "models" / "legacy"


def external_link(file: Any, name: str, secret: Path) -> None:
    file[name] = h5py.ExternalLink(str(secret), "/secret")


def external_array(file: Any, name: str, secret: Path) -> None:
    file.create_dataset(name, (4,), "u1", external=[(str(secret), 0, 4)])


def virtual_array(file: Any, name: str, secret: Path) -> None:
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource(str(secret), "secret", (4,))
    file.create_virtual_dataset(name, layout)


TRICKS = {each.__name__: each for each in (external_link, external_array, virtual_array)}
Trick = Callable[[Any, str, Path], None]


def model() -> Any:
    keras = require("keras")
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(5, name="end")]
    return keras.Sequential(layers)


def replaced(path: Path, content: Any, trick: Trick, secret: Path) -> None:
    """Replace one array of an HDF5 file by a trick."""
    with h5py.File(content if content is not None else path, "r+") as file:
        arrays: list[str] = []
        file.visititems(lambda name, item: arrays.append(name) if hasattr(item, "dtype") else None)
        del file[arrays[-1]]
        trick(file, arrays[-1], secret)


def whole_h5(folder: Path, trick: Trick, secret: Path) -> Path:
    path = folder / "it.h5"
    model().save(path)
    replaced(path, None, trick, secret)
    return path


def of_keras_2(folder: Path, trick: Trick, secret: Path) -> Path:
    path = folder / "it.h5"
    path.write_bytes((LEGACY / "sequential.h5").read_bytes())
    replaced(path, None, trick, secret)
    return path


def architecture(folder: Path, trick: Trick, secret: Path) -> Path:
    (folder / "model.json").write_text(model().to_json())
    model().save_weights(folder / "it.weights.h5")
    replaced(folder / "it.weights.h5", None, trick, secret)
    return folder / "model.json"


def archive(folder: Path, trick: Trick, secret: Path) -> Path:
    model().save(folder / "good.keras")
    with (
        zipfile.ZipFile(folder / "good.keras") as old,
        zipfile.ZipFile(folder / "it.keras", "w") as new,
    ):
        for name in old.namelist():
            content = BytesIO(old.read(name))
            if name.endswith(".h5"):
                replaced(folder, content, trick, secret)
            new.writestr(name, content.getvalue())
    return folder / "it.keras"


MAKERS = {each.__name__: each for each in (whole_h5, of_keras_2, architecture, archive)}


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("maker", MAKERS)
def test_weights_in_other_files_are_refused(tmp_path: Path, maker: str, trick: str) -> None:
    with h5py.File(tmp_path / "secret", "w") as file:
        file["secret"] = np.arange(4, dtype=np.uint8)
    path = MAKERS[maker](tmp_path, TRICKS[trick], tmp_path / "secret")
    with pytest.raises(UsageError, match="in another file, and kedge reads none") as caught:
        load(SourceRequest(str(path)))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


def test_links_within_a_file_go_round_in_no_circle(tmp_path: Path) -> None:
    from kedge_convert.load.configuration import refuse_links

    with h5py.File(tmp_path / "it.h5", "w") as file:
        file["a/b/c"] = np.zeros(3)
        file["a/b/back"] = file["a"]
        file["soft"] = h5py.SoftLink("/a")
        file["dangling"] = h5py.SoftLink("/nowhere")
    refuse_links(tmp_path / "it.h5")


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    model().save(tmp_path / "it.keras")
    with zipfile.ZipFile(tmp_path / "it.keras", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/zeros", bytes(256 << 20))
    with pytest.raises(UsageError, match=r"unpacks to 268\d+ bytes, allowed .* are \d+: save it"):
        load(SourceRequest(str(tmp_path / "it.keras")))


LAYERS = {
    "a vocabulary": ("StringLookup", {"vocabulary": "/etc/hostname"}),
    "a SavedModel": ("TFSMLayer", {"filepath": "elsewhere"}),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("version", [2, 3])
def test_layers_that_read_files_are_refused(tmp_path: Path, name: str, version: int) -> None:
    kind, settings = LAYERS[name]
    config = json.loads(model().to_json())
    layer = {"module": "keras.layers", "class_name": kind, "config": settings}
    config["config"]["layers"].insert(1, {**layer, "registered_name": None})
    if version == 2:
        config["keras_version"] = "2.15.0"
    (tmp_path / "model.json").write_text(json.dumps(config))
    model().save_weights(tmp_path / "it.weights.h5")
    with pytest.raises(UsageError, match=f"its layer '{kind}' reads another file"):
        load(SourceRequest(str(tmp_path / "model.json")))


def test_a_configuration_may_be_of_any_depth(tmp_path: Path) -> None:
    deep = '{"class_name": "Lambda", "config": ' * 2000 + "{}" + "}" * 2000
    (tmp_path / "model.json").write_text(deep)
    with pytest.raises(UsageError, match="no Keras model in this file"):
        load(SourceRequest(str(tmp_path / "model.json")))
    nested: Any = {"class_name": "Lambda", "config": {"function": ["code"], "name": "inner"}}
    for _ in range(5000):
        nested = {"class_name": "Sequential", "config": {"layers": [nested]}}
    assert [part["class_name"] for part in objects(nested)][-1] == "Lambda"
