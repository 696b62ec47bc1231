"""How much memory is free, what a process holds, and how limits are written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kedge_convert.worker import process as bounds
from kedge_runtime.checks.hardware import Machine
from kedge_runtime.errors import UsageError

GB = 1 << 20  # kilobytes, as /proc/meminfo has them
MEMORY = f"MemTotal: {24 * GB} kB\nMemAvailable: {20 * GB} kB\n"


def machine(root: Path, files: dict[str, str]) -> Machine:
    """Return a machine whose files are these."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Machine(root)


V2 = {
    "proc/self/cgroup": "0::/user/job\n",
    "sys/fs/cgroup/user/job/memory.max": "max\n",
    "sys/fs/cgroup/user/job/memory.current": "900\n",
    "sys/fs/cgroup/user/memory.max": "5000000\n",
    "sys/fs/cgroup/user/memory.current": "2000000\n",
    "sys/fs/cgroup/user/memory.stat": "anon 1\ninactive_file 500000\n",
}
V1 = {
    "proc/self/cgroup": "5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n",
    "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "7000000\n",
    "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "4000000\n",
    "sys/fs/cgroup/memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 1000000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "8000000\n",
}
# In a container the group's path may be the host's.
CONTAINER = {
    "proc/self/cgroup": "0::/host/of/it\n",
    "sys/fs/cgroup/memory.max": "3000000\n",
    "sys/fs/cgroup/memory.current": "1000000\n",
}
FREE = {
    "the machine": ({}, 20 << 30),
    "a group around, version 2": (V2, 3_500_000),
    "its own group, version 1": (V1, 4_000_000),
    "a container": (CONTAINER, 2_000_000),
    "more used than allowed": ({**CONTAINER, "sys/fs/cgroup/memory.current": "4000000"}, 0),
}


@pytest.mark.parametrize("case", FREE)
def test_free_is_what_the_tightest_leaves(tmp_path: Path, case: str) -> None:
    files, free = FREE[case]
    here = machine(tmp_path, {"proc/meminfo": MEMORY, **files})
    assert bounds.free_memory(here) == free
    assert bounds.read_memory("80%", here) == int(free * 0.8)


def test_without_proc_there_is_no_limit(tmp_path: Path) -> None:
    assert bounds.free_memory(Machine(tmp_path)) is None
    assert bounds.read_memory("80%", Machine(tmp_path)) is None
    assert bounds.read_memory("8G", Machine(tmp_path)) == 8 * 10**9


WRITTEN = {"8G": 8 * 10**9, "1.5g": 15 * 10**8, "500M": 5 * 10**8, "500MB": 5 * 10**8, "none": None}


@pytest.mark.parametrize("text", WRITTEN)
def test_memory_is_read(text: str) -> None:
    assert bounds.read_memory(text) == WRITTEN[text]


@pytest.mark.parametrize(
    "text", ["", "0", "0%", "101%", "-1G", "8 G", "lots", "8GiB", "nan", f"{9:9<400}G"]
)
def test_memory_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--memory-limit: got .*, allowed are e\.g\. 8G, 500M"):
        bounds.read_memory(text)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5m", 90), ("2h", 7200)])
def test_time_is_read(text: str, seconds: float) -> None:
    assert bounds.read_time(text) == seconds
    assert bounds.read_time("none") is None


@pytest.mark.parametrize("text", ["", "90", "0s", "1d", "-1s", f"{9:9<400}s"])
def test_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--time-limit: got .*, allowed are e\.g\. 90s, 30m"):
        bounds.read_time(text)


HOLD = "taken = bytearray(b'x') * 200_000_000; print(flush=True); input()"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"


@pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that tells")
@pytest.mark.parametrize("code", [HOLD, PARENT], ids=["itself", "its child"])
def test_what_a_process_holds(code: str) -> None:
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        held = bounds.held(process.pid)
        peak = sum(bounds.highest(process.pid).values())
        process.communicate(b"\n")
    assert 200_000_000 <= held <= peak <= 300_000_000
    assert bounds.held(process.pid) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that tells")
def test_a_family_begins_with_the_process_itself() -> None:
    assert next(bounds.family(os.getpid())) == os.getpid()
