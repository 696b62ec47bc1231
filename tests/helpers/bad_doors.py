"""Doors that are as bad as their names say: what a fuzzer has to see.

    python tests/helpers/bad_doors.py FOLDER

Prints a JSON object: by door, the kinds and places of faults seen in a batch and alone, and the
content of the finding's file in FOLDER.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from fuzz import batches, findings, trial
from fuzz.corpus import faults
from fuzz.doors import DOORS, Door
from fuzz.findings import Finding
from kedge_runtime.errors import KedgeError


def _dies(_: bytes) -> None:
    os.kill(os.getpid(), 11)


def _hangs(_: bytes) -> None:
    while True:
        pass


def _holds(_: bytes) -> int:
    return len(b"x" * (500 << 20))


def _asks(_: bytes) -> int:
    return len(bytearray(8 << 30))


def _raises(content: bytes) -> None:
    raise ZeroDivisionError


def _letters(content: bytes) -> None:
    if b"g" in content and b"d" in content:
        raise ZeroDivisionError


def _refuses(_: bytes) -> None:
    raise KedgeError("no")


def _starves(_: bytes) -> None:
    raise KedgeError("can't be decoded (Insufficient memory)")


BAD = {
    "dies": _dies,
    "hangs": _hangs,
    "holds": _holds,
    "asks": _asks,
    "raises": _raises,
    "letters": _letters,
    "refuses": _refuses,
    "starves": _starves,
}


def seen(name: str, folder: Path) -> dict[str, Any]:
    """Return what is seen of a bad door."""
    found = sorted({(fault.kind, fault.where) for _, fault in faults(name, 3)})
    alone = batches.alone(name, b"good")
    told: dict[str, Any] = {"batch": found, "alone": alone and (alone.kind, alone.where)}
    if alone:
        path = findings.write(Finding(name, alone, b"a good one"), folder)
        said = path.with_suffix(".txt").read_text(encoding="utf-8")
        told |= {"file": path.read_bytes().decode(), "said": said}
    return told


if __name__ == "__main__":
    # CPU seconds: enough to touch what `_holds` holds where the machine is busy.
    trial.HANG = 2
    for name, call in BAD.items():
        DOORS[name] = Door(call, lambda: [b"good"])
    place = Path(sys.argv[1])
    sys.stdout.write(json.dumps({name: seen(name, place) for name in BAD}))
