"""The check of a sealed file is paid once, and believed only where nobody else can write."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import MODELS
from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.errors import ArtefactError
from kedge_runtime.modelfile.check import check as sound
from kedge_runtime.modelfile.check import passed as checked
from kedge_runtime.output import quiet

Home = Callable[[], Path]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where this test's user has the notes."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "kedge" / "checked"


def _opened(content: ModelContent) -> None:
    with quiet():
        open_engine(content, EngineOptions(threads=1)).warm_up()


def test_a_sealed_file_is_checked_once(
    folder: Path, artefacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, check = [], sound.check_model

    def counted(content: ModelContent) -> object:
        asked.append(content.path)
        return check(content)

    monkeypatch.setattr(sound, "check_model", counted)
    path = artefacts / "tiny.tflite"
    _opened(read_content(path))
    _opened(read_content(path))
    assert asked == [path]
    assert (
        stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    )
    (folder / next(folder.iterdir()).name).unlink()
    _opened(read_content(path))
    assert asked == [path, path]


def test_other_bytes_are_another_file(folder: Path, artefacts: Path) -> None:
    content = read_content(artefacts / "tiny.tflite")
    checked.remember(content)
    assert checked.is_known(content)
    changed = bytearray(content.data)
    changed[100] ^= 1
    assert not checked.is_known(ModelContent(content.path, "tflite", bytes(changed)))
    # The digest stands at the end, but is not that of these bytes.
    moved = bytes(changed[:-71]) + content.data[-71:]
    assert not checked.is_known(ModelContent(content.path, "tflite", moved))


def test_unsealed_files_are_never_known(folder: Path) -> None:
    content = read_content(MODELS / "tiny.tflite")
    checked.remember(content)
    assert not folder.exists()
    assert not checked.is_known(content)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o755, 0o701])
def test_a_folder_that_others_reach_is_not_believed(
    mode: int, folder: Path, artefacts: Path
) -> None:
    content = read_content(artefacts / "tiny.tflite")
    checked.remember(content)
    folder.chmod(mode)
    assert not checked.is_known(content)


def test_a_link_to_another_folder_is_not_believed(
    folder: Path, artefacts: Path, tmp_path: Path
) -> None:
    content = read_content(artefacts / "tiny.tflite")
    checked.remember(content)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert not checked.is_known(content)


def test_without_a_place_the_check_is_paid_again(
    folder: Path, artefacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("a file")
    _opened(read_content(artefacts / "tiny.tflite"))
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    _opened(read_content(artefacts / "tiny.tflite"))


def test_notes_are_bounded(folder: Path, artefacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "MOST", 3)
    content = read_content(artefacts / "tiny.tflite")
    checked.remember(content)
    for name in "ab":
        (folder / name).touch()
    checked.remember(content)
    assert len(os.listdir(folder)) == 1  # noqa: PTH208


def test_a_hostile_file_is_never_noted(folder: Path, shared: Path) -> None:
    path = shared / "data" / "hostile" / "semantic-crash-7e6f347e.tflite"
    for _ in range(2):
        with pytest.raises(ArtefactError, match=r"invalid \.tflite model"):
            _opened(read_content(path))
    assert not folder.exists()
