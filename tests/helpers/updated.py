"""What the tests of updates share: artefacts that pass verify, and a watch with an endless camera.

Run as a program, it is `kedge watch` with a red camera, quick updates, and models that may crash.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from conftest import tiny_contract
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.contract import Label
from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.sealing import golden_set
from kedge_runtime.artefact.signing import PrivateKey, signed
from kedge_runtime.output import quiet
from served import BLUE, RED, encoded

NAMES = ("red", "green", "blue", "dark")
CRASHING = "crashing"  # a class name: a model that has it ends the process on its third image


def model_file(
    path: Path, model: bytes, names: tuple[str, ...] = NAMES, *, source: str = "tiny"
) -> Path:
    """Seal the tiny model with these class names and a true golden set; return the path."""
    contract = replace(
        tiny_contract(path.suffix[1:]), labels=tuple(Label(name, name) for name in names)
    )
    contract = replace(contract, provenance=replace(contract.provenance, source=source))
    content = ModelContent(path, path.suffix[1:], model)
    with quiet():
        golden = golden_set(
            content, contract, [encoded(RED), encoded(BLUE)], np.zeros((2, 4), np.float32)
        )
    path.write_bytes(seal(path.suffix[1:], model, contract, golden))
    return path


def sign(path: Path, key: PrivateKey, serial: int) -> Path:
    """Sign a sealed file in place."""
    content = ModelContent(path, path.suffix[1:], path.read_bytes())
    path.write_bytes(signed(content, key, serial))
    return path


def put(path: Path, folder: Path) -> Path:
    """Put a file into a watched folder whole, and newer than all others."""
    temporary = folder / f".{path.name}"
    temporary.write_bytes(path.read_bytes())
    return temporary.rename(folder / path.name)


@dataclass
class Watched:
    """A running `kedge watch --json`; `lines`: what it has printed and was read."""

    process: "subprocess.Popen[str]"
    lines: list[dict[str, Any]]

    def until(self, kind: str, seconds: float = 240) -> dict[str, Any]:
        """Read lines until an event of a kind (`answer`: an answer); return it."""
        assert self.process.stdout is not None
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            text = self.process.stdout.readline()
            assert text, self.ended()
            self.lines.append(json.loads(text))
            if self.lines[-1].get("event", "answer") == kind:
                return self.lines[-1]
        raise AssertionError(f"no {kind}: {[each.get('event') for each in self.lines]}")

    def until_end(self) -> None:
        """Read lines until the process ends."""
        assert self.process.stdout is not None
        self.lines += map(json.loads, self.process.stdout)

    def ended(self) -> str:
        """Wait for the end; return what it wrote on stderr."""
        assert self.process.stderr is not None
        self.process.wait(30)
        return self.process.stderr.read()

    def stop(self) -> str:
        """End it as systemd does; return what it wrote on stderr."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=30)
        self.lines += map(json.loads, out.splitlines())
        return err

    @property
    def kinds(self) -> list[str]:
        """The kinds of the events so far."""
        return [line["event"] for line in self.lines if "event" in line]


@contextmanager
def watched(*words: object) -> Iterator[Watched]:
    """Run `kedge watch --json` with an endless red camera; it is killed after the block."""
    command = [sys.executable, __file__, "watch", *map(str, words), "--camera", "0", "--json"]
    path = os.pathsep.join(filter(None, sys.path))
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    try:
        yield Watched(process, [])
    finally:
        process.kill()
        process.communicate()


def _endless(*_: object) -> Iterator[Any]:
    from kedge_runtime.streams import Frame

    for index in itertools.count():
        time.sleep(0.02)
        yield Frame(index, time.time(), np.full((8, 8, 3), RED, np.uint8))


def _main() -> None:
    from kedge_runtime.classify.classifier import Classifier
    from kedge_runtime.cli import main
    from kedge_runtime.engines.isolated import Isolated
    from kedge_runtime.streams import live
    from kedge_runtime.updates import shadow, updater

    asked = Classifier.prepared_result
    counts = itertools.count(1)

    def crashing(self: Classifier, *arguments: Any) -> Any:
        names = {label.name for label in self.contract.labels}
        here = not isinstance(self.engine, Isolated)
        if CRASHING in names and here and next(counts) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return asked(self, *arguments)

    vars(live)["open_camera"] = _endless
    updater.PAUSE, shadow.GAP = 0.1, 0.0
    setattr(Classifier, "prepared_result", crashing)  # noqa: B010 - mypy refuses the other way
    main()


if __name__ == "__main__":
    _main()
