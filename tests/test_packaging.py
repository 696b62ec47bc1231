"""The wheel and the source archive: made by the tool, with what they need and nothing else."""

import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest

from kedge_runtime import __version__
from kedge_runtime.errors import DISTRIBUTION

ROOT = Path(__file__).parent.parent
NAME = f"{DISTRIBUTION.replace('-', '_')}-{__version__}"
PAGE_LINK = re.compile(r"\]\((?!https?:)")

pytest.importorskip("check_wheel_contents", reason="needs keras-kedge[dev]")
pytest.importorskip("validate_pyproject", reason="needs keras-kedge[dev]")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel and the archive; it holds nothing else."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, str(ROOT / "tools/wheel.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} == {
        f"{NAME}.tar.gz",
        f"{NAME}-py3-none-any.whl",
    }
    return folder


@pytest.fixture(scope="module")
def metadata(built: Path) -> Message:
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as wheel:
        text = wheel.read(f"{NAME}.dist-info/METADATA").decode()
    return HeaderParser().parsestr(text)


def test_the_page_on_the_index_has_no_link_that_leads_nowhere(metadata: Message) -> None:
    page = metadata.get_payload()
    assert isinstance(page, str)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert PAGE_LINK.search(readme)  # what there is to replace
    assert not PAGE_LINK.search(page)
    assert "([measured](docs/quantisation.md#" in readme
    assert "(measured: docs/quantisation.md)" in page
    assert "[docs/pi.md](docs/pi.md)" in readme
    assert "docs/pi.md: " not in page
    assert page.startswith("# kedge")


def test_the_metadata_says_who_and_for_which_python(metadata: Message) -> None:
    assert metadata["Name"] == DISTRIBUTION
    assert metadata["Author"] == "The kedge authors"
    assert metadata["Requires-Python"] == "<3.15,>=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"


def test_the_archive_has_all_that_is_committed(built: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("no git here")
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert set(listed.stdout.split("\n")) - packed == {""}
    assert packed >= {"PKG-INFO", "tests/test_packaging.py", "docs/README.md", "Makefile"}


def test_the_wheel_has_no_tests_and_no_documentation(built: Path) -> None:
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as wheel:
        tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert tops == {"kedge_convert", "kedge_models", "kedge_runtime", f"{NAME}.dist-info"}


def test_a_fault_in_the_wheel_is_found(built: Path, tmp_path: Path) -> None:
    """The kept check can fail: here a folder would lie beside everybody's packages."""
    stray, record = "tests/__init__.py", f"{NAME}.dist-info/RECORD"
    changed = tmp_path / f"{NAME}-py3-none-any.whl"
    with zipfile.ZipFile(built / changed.name) as wheel, zipfile.ZipFile(changed, "w") as copy:
        for name in wheel.namelist():
            copy.writestr(name, wheel.read(name) + (f"{stray},,\n".encode() * (name == record)))
        copy.writestr(stray, "")
    done = subprocess.run(
        [sys.executable, "-m", "check_wheel_contents", changed], cwd=ROOT, capture_output=True
    )
    assert (done.returncode, stray.partition("/")[0].encode() in done.stdout) == (1, True)
