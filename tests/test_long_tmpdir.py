"""A temporary folder whose path is too long for the path of a socket (107 bytes on Linux)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

import warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's limit of a socket's path")

# The fork server of the tests, without what it imports.
SERVER = "import warm; warm.PRELOADED = 'json'; warm.use(); warm._context('')"
# A conversion whose targets are files without a toolkit, by the command's own worker process.
CONVERSION = "import deadly; deadly.main()"


@pytest.mark.parametrize("code", [SERVER, CONVERSION], ids=["the tests' workers", "the command's"])
def test_workers_start_below_a_long_temporary_folder(tmp_path: Path, code: str) -> None:
    temporary, plan = tmp_path / ("x" * 120), tmp_path / "plan"
    temporary.mkdir()
    plan.write_text("{}")
    path = os.pathsep.join([str(Path(warm.__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", code, str(plan), str(tmp_path / "out")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, list(temporary.iterdir())) == (0, []), ran.stderr
