"""The scripts of tools/ and benchmarks/: asked for help, they give it; the length of files."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Other Pythons run these, in environments without kedge.
INNER = {"peer_mediapipe.py", "peer_quantise.py"}
MAX_LINES = 350
TOOLS = sorted((ROOT / "tools").glob("*.py"))
SCRIPTS = [
    path
    for path in (*TOOLS, *sorted((ROOT / "benchmarks").glob("*.py")))
    if '"__main__"' in path.read_text() and path.name not in INNER
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_reads_its_options(script: Path) -> None:
    """Else --help would start a measurement, or be taken for a file."""
    assert "ArgumentParser(" in script.read_text()


@pytest.mark.parametrize("script", sorted({*TOOLS} & {*SCRIPTS}), ids=lambda path: path.name)
def test_a_tool_shows_its_help(script: Path) -> None:
    shown = subprocess.run(
        [sys.executable, script, "--help"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith(f"usage: {script.name}")


@pytest.mark.parametrize("folder", ["convert", "models", "runtime", "tools"])
def test_a_file_has_one_subject(folder: str) -> None:
    """A longer file has two, which a reader can't hold at once."""
    lines = {path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert [path.name for path, count in lines.items() if count > MAX_LINES] == []
