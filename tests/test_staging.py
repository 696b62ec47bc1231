"""How files get their names: whole, or not at all."""

import itertools
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import tiny_contract
from kedge_convert.job import Job
from kedge_convert.load.request import SourceRequest
from kedge_convert.staging import (
    forget,
    output_folder,
    publish,
    refuse_other_device,
    rejected,
    remove_files_of,
    write,
)
from kedge_convert.targets import TARGETS
from kedge_convert.verdict import UserLimits
from kedge_models.devices import device
from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.errors import UsageError
from kedge_runtime.files import staged, temporary_folder, write_whole


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on a disk of 64 KiB, or skip where no disk can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if (
        not shutil.which("mount")
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        pytest.skip("a full disk needs the right to mount one")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_file_appears_whole_under_its_name(tmp_path: Path) -> None:
    final = tmp_path / "model.tflite"
    with staged(final) as temporary:
        write(temporary, b"content")
        assert not final.exists()
        publish(temporary, final)
    assert final.read_bytes() == b"content"
    assert list(tmp_path.iterdir()) == [final]


def test_the_temporary_file_is_hidden_beside_it_with_its_suffix(tmp_path: Path) -> None:
    with staged(tmp_path / "model.tflite") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".kedge-")
        assert temporary.suffix == ".tflite"


def test_publishing_replaces_what_had_the_name(tmp_path: Path) -> None:
    final = tmp_path / "model.tflite"
    final.write_bytes(b"old")
    with staged(final) as temporary:
        write(temporary, b"new")
        assert final.read_bytes() == b"old"
        publish(temporary, final)
    assert final.read_bytes() == b"new"


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, stop: type[BaseException]
) -> None:
    final = tmp_path / "model.tflite"
    final.write_bytes(b"old")
    with pytest.raises(stop), staged(final) as temporary:
        write(temporary, b"half")
        raise stop
    assert list(tmp_path.iterdir()) == [final]
    assert final.read_bytes() == b"old"


def _publish(path: Path) -> None:
    with staged(path) as temporary:
        write(temporary, b"content")
        publish(temporary, path)


@pytest.mark.parametrize("way", [_publish, lambda path: write_whole(path, b"content")])
def test_a_loss_of_power_costs_neither_the_file_nor_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[Path], None]
) -> None:
    final, happened = tmp_path / "model.tflite", list[str]()

    def fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        happened.append(f"{kind} synced, {'named' if final.exists() else 'hidden'}")

    monkeypatch.setattr(os, "fsync", fsync)
    way(final)
    assert happened == ["file synced, hidden", "folder synced, named"]


def test_a_name_that_is_a_folder_is_the_users_mistake(tmp_path: Path) -> None:
    final = tmp_path / "model.tflite"
    final.mkdir()
    with pytest.raises(UsageError, match="can't be written"), staged(final) as temporary:
        write(temporary, b"content")
        publish(temporary, final)
    assert list(tmp_path.iterdir()) == [final]


def test_a_full_disk_leaves_nothing(small_disk: Path) -> None:
    final = small_disk / "model.tflite"
    final.write_bytes(b"old")
    with pytest.raises(UsageError, match="no space left on device"), staged(final) as temporary:
        write(temporary, bytes(1 << 20))
    assert list(small_disk.iterdir()) == [final]
    assert final.read_bytes() == b"old"


def test_a_file_limit_is_met_like_a_full_disk(tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from kedge_convert.staging import write\n"
        "from kedge_runtime.errors import UsageError\n"
        "from kedge_runtime.files import staged\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    with staged(Path(sys.argv[1]) / 'model.tflite') as temporary:\n"
        "        write(temporary, bytes(5000))\n"
        "except UsageError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "can't be written (file too large); choose another folder" in ran.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_stays_empty_goes_with_all_that_was_made(tmp_path: Path) -> None:
    with output_folder(tmp_path / "a" / "b"):
        assert list((tmp_path / "a" / "b").iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_was_there_stays(tmp_path: Path) -> None:
    with output_folder(tmp_path):
        pass
    assert tmp_path.is_dir()


def test_an_output_folder_with_something_in_it_stays(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "file").touch()
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_only_the_dead_process_s_hidden_files_are_swept(tmp_path: Path) -> None:
    for name in (".kedge-12-a.tflite", ".kedge-123-a.tflite", "a.tflite"):
        (tmp_path / name).touch()
    remove_files_of(tmp_path, 12)
    assert {path.name for path in tmp_path.iterdir()} == {".kedge-123-a.tflite", "a.tflite"}


def test_a_temporary_folder_that_cannot_be_made_names_tmpdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(UsageError, match=r"temporary folder .*set TMPDIR"), temporary_folder():
        pass


def refused(folder: Path) -> None:
    with output_folder(folder):
        raise AssertionError("not refused")


@pytest.mark.parametrize("parts", [("file",), ("file", "below")], ids=["a file", "below a file"])
def test_an_output_folder_is_refused(tmp_path: Path, parts: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("the user's")
    with pytest.raises(UsageError, match=r"--out: .*file.*: can't be written .*another folder"):
        refused(tmp_path.joinpath(*parts))
    assert (tmp_path / "file").read_text() == "the user's"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc here")
def test_an_output_folder_is_refused_what_not_even_root_may_write() -> None:
    with pytest.raises(UsageError, match="can't be written"):
        refused(Path("/proc/kedge"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_is_refused_a_folder_without_the_right_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="permission denied"):
        refused(tmp_path)


def test_a_file_that_was_made_for_another_device_is_spared(
    tmp_path: Path, models: dict[str, bytes]
) -> None:
    contract, path = tiny_contract("onnx"), tmp_path / "tiny.onnx"
    for owner, taker in itertools.product(("", "coral", "pi4"), repeat=2):
        provenance = replace(contract.provenance, device=owner)
        sealed = replace(contract, provenance=provenance)
        path.write_bytes(seal("onnx", models["onnx"], sealed, Golden.none()))
        if owner == taker:
            refuse_other_device([path], taker)
        else:
            with pytest.raises(UsageError, match=rf"{path} was made .*{owner}.* would replace it"):
                refuse_other_device([path], taker)


def test_only_what_the_same_device_rejected_is_forgotten(
    tmp_path: Path, models: dict[str, bytes]
) -> None:
    contract, final = tiny_contract("onnx"), tmp_path / "tiny.onnx"
    path = rejected(final)
    for owner, taker in itertools.product(("", "coral", "pi4"), repeat=2):
        provenance = replace(contract.provenance, device=owner)
        sealed = replace(contract, provenance=provenance)
        path.write_bytes(seal("onnx", models["onnx"], sealed, Golden.none()))
        forget(final, taker)
        assert path.exists() == (owner != taker)
    path.write_bytes(b"cut short")
    forget(final, "coral")
    forget(final, "coral")
    assert not path.exists()


@pytest.mark.parametrize("content", [None, b"", b"somebody else's"])
def test_only_artefacts_are_spared(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "tiny.onnx"
    if content is not None:
        path.write_bytes(content)
    refuse_other_device([path], "coral")


def test_what_a_budget_may_make_of_a_target_is_spared_too() -> None:
    job = Job(SourceRequest("demo"), (TARGETS[0], TARGETS[3]), Path("out"))
    plain = ["demo.float32.tflite", "demo.int8.tflite"]
    assert [path.name for path in job.paths("demo")] == plain
    resorts = [path.name for path in replace(job, limits=UserLimits(drop=0.01)).paths("demo")]
    assert resorts == [*plain, "demo.mixed.tflite", "demo.float16.tflite"]
    coral = replace(job, limits=UserLimits(drop=0.01), device=device("coral"))
    assert [path.name for path in coral.paths("demo")] == plain
