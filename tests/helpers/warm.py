"""Workers for the tests, forked off a process that has imported the toolkits once.

The command starts each worker as a fresh Python, half of whose time goes into importing TensorFlow.
The code that runs in the worker is the same. test_supervisor.py and every test that runs the
command as a program of its own keep fresh ones.
"""

import os
import tempfile
from multiprocessing import forkserver, get_context, util
from multiprocessing.context import ForkServerContext
from pathlib import Path

from kedge_convert.worker import process

PRELOADED = "warm_imports"
SHORT = "/tmp"  # a socket's path has 107 bytes at most, a TMPDIR may have more


def use() -> None:
    """Let workers of this process be forked."""
    _keep_short_folder()
    vars(process)["get_context"] = _context


def _keep_short_folder() -> None:
    """Create multiprocessing's folder, which is kept for good; it holds the fork server's socket.

    The command's own workers have pipes without names (test_supervisor.py).
    """
    before, tempfile.tempdir = tempfile.tempdir, SHORT
    try:
        util.get_temp_dir()
    finally:
        tempfile.tempdir = before


def _context(_: str) -> ForkServerContext:
    """Return the context of the fork server, which starts with the first worker.

    It finds the tests' modules by PYTHONPATH alone (python/cpython#126631).
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), before]))
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return context
