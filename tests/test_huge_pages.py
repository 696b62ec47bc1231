"""The worker's blocks lie in pages of 2 MB, where kernel and glibc know them."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from kedge_convert.worker.process import HUGE_PAGES, TUNABLES, _environment

SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# 32 MB that are written to: how much of it lies in huge pages? numpy would ask for them itself.
SCRIPT = """
import ctypes, re
from pathlib import Path
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
block = ctypes.c_void_p(library.malloc(ctypes.c_size_t(32 << 20)))
ctypes.memset(block, 1, 32 << 20)
held = re.search(r"AnonHugePages:\\s+(\\d+) kB", Path("/proc/self/smaps_rollup").read_text())
print(int(held[1]) >= 24 << 10)
"""


def test_the_users_own_tunables_stay_and_count(monkeypatch: pytest.MonkeyPatch) -> None:
    own = "glibc.malloc.hugetlb=0:glibc.malloc.perturb=1"
    monkeypatch.setenv(TUNABLES, own)
    with _environment():
        assert os.environ[TUNABLES] == f"{HUGE_PAGES}:{own}"
    assert os.environ[TUNABLES] == own


def test_nothing_stays_behind_in_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TUNABLES, raising=False)
    with _environment():
        assert os.environ[TUNABLES] == HUGE_PAGES
    assert TUNABLES not in os.environ


@pytest.mark.parametrize(("own", "wanted"), [("", "True"), ("glibc.malloc.hugetlb=0", "False")])
def test_blocks_lie_in_huge_pages(own: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = SWITCH.read_text() if SWITCH.exists() else ""
    name, version = platform.libc_ver()
    if (
        "[madvise]" not in switch
        or name != "glibc"
        or tuple(map(int, version.split("."))) < (2, 35)
    ):
        pytest.skip("no huge pages on demand here")
    monkeypatch.setenv(TUNABLES, own)
    with _environment():
        command = [sys.executable, "-c", SCRIPT]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [wanted]
