"""Where weights are prepared, glibc maps large blocks by themselves, so that they go back."""

import subprocess
import sys

import pytest

# In a process of its own, as the change is for good. glibc's threshold grows with what is freed.
SCRIPT = """
import ctypes, sys
import numpy as np
from kedge_convert.memory import MAPPED, map_large_blocks

class Info(ctypes.Structure):  # mallinfo2 of malloc.h
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

library = ctypes.CDLL(None)
if not hasattr(library, "mallinfo2"):
    sys.exit("only glibc 2.33 and later tell")
library.mallinfo2.restype = Info

def mapped():
    before = library.mallinfo2().hblkhd
    block = np.empty(MAPPED * 5 // 4, np.uint8)
    return library.mallinfo2().hblkhd - before

np.empty(MAPPED * 15 // 8, np.uint8)
if sys.argv[1] == "mapped":
    map_large_blocks()
print(mapped() > MAPPED)
"""


@pytest.mark.parametrize(("way", "wanted"), [("mapped", "True"), ("as glibc does", "False")])
def test_large_blocks_are_mapped_from_then_on(way: str, wanted: str) -> None:
    command = [sys.executable, "-c", SCRIPT, way]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode == 0:
        assert ran.stdout.split() == [wanted]
    else:
        assert "only glibc" in ran.stderr
