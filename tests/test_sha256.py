"""Digests are those of `hashlib`, and small content has its own without OpenSSL."""

import subprocess
import sys
from hashlib import sha256

import pytest

from kedge_runtime.sha256 import SMALL

PROGRAM = """
import sys
{first}
from kedge_runtime.sha256 import sha256

print(sha256(bytes({size})).hexdigest(), sha256(memoryview(b"abc")).digest().hex())
print("_hashlib" in sys.modules)
"""
WITHOUT_OWN = "sys.modules['_sha2'] = sys.modules['_sha256'] = None"
# What comes before, the size of the content, and whether OpenSSL is loaded then.
CASES = {
    "empty": ("", 0, False),
    "small": ("", SMALL, False),
    "large": ("", SMALL + 1, True),
    "a program that has loaded OpenSSL": ("import hashlib", 1, True),
    "a Python without an implementation of its own": (WITHOUT_OWN, 1, True),
}


@pytest.mark.parametrize("case", CASES)
def test_each_way_gives_the_same_digest(case: str) -> None:
    first, size, loaded = CASES[case]
    program = PROGRAM.format(first=first, size=size)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == [
        sha256(bytes(size)).hexdigest(),
        sha256(b"abc").hexdigest(),
        str(loaded),
    ], done.stderr
