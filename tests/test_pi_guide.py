"""The Raspberry Pi guide: kedge takes its commands, and systemd the service's unit."""

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kedge_runtime.cli import kedge

DOCS = Path(__file__).parent.parent / "docs"
GUIDE, STREAMS = ((DOCS / name).read_text(encoding="utf-8") for name in ("pi.md", "streams.md"))
(UNIT,) = re.findall(r"```\n(\[Unit\]\n.*?)```", STREAMS, flags=re.DOTALL)
PROGRAM = "/opt/kedge/bin/kedge"


def commands() -> list[str]:
    """Return the guide's lines that call kedge, without the path before it, and the service's."""
    blocks = re.findall(r"```\n(.*?)```", GUIDE, flags=re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    found = [re.fullmatch(r"(?:sudo )?(?:\S*/bin/)?kedge (.*)", line) for line in lines]
    return [match[1] for match in found if match] + [_service()["ExecStart"].removeprefix(PROGRAM)]


def _service() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT)
    return unit["Service"]


@pytest.mark.parametrize("line", commands())
def test_every_option_of_the_guide_is_one(line: str) -> None:
    name, *words = shlex.split(line.partition(">")[0])
    command = kedge.get_command(click.Context(kedge), name)
    assert command is not None
    # Parses, and fails for an unknown option, a missing value, a word of no kind.
    context = command.make_context(name, words)
    assert context.params


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if not (analyze := shutil.which("systemd-analyze")):
        pytest.skip("no systemd-analyze")
    unit = tmp_path / "kedge.service"
    unit.write_text(UNIT.replace(PROGRAM, sys.executable))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_links_of_the_guide_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", GUIDE)
    files = [target.partition("#")[0] for target in targets if "://" not in target]
    assert files
    assert [name for name in files if name and not (DOCS / name).is_file()] == []
