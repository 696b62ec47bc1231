"""How much time and memory a command takes, with all the processes that it starts."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kedge_convert.worker.process import highest

INTERVAL = 0.05  # seconds; the kernel keeps each process's peak, only its last moment can be missed


class Ran(NamedTuple):
    """A command that ended. Peaks are resident bytes, mapped files included.

    `parent`: the command's own process; `children`: the most that its descendants took at once, or
    a little less: each counts with its highest figure so far.
    """

    code: int
    stdout: str
    stderr: str
    seconds: float
    parent: int
    children: int

    @property
    def peak(self) -> int:
        """Of all processes together."""
        return self.parent + self.children


def run(command: Sequence[str], folder: Path) -> Ran:
    """Run a command in `folder` to its end and watch it."""
    with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as err:
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=err)
        parent = children = 0
        while process.poll() is None:
            now = highest(process.pid)
            parent = max(parent, now.pop(process.pid))
            children = max(children, sum(now.values()))
            time.sleep(INTERVAL)
        seconds = time.monotonic() - started
    texts = [(folder / name).read_text() for name in ("stdout", "stderr")]
    return Ran(process.returncode, texts[0], texts[1], seconds, parent, children)
