"""Run `kedge verify` in a process of its own.

Its decoder and its engine read a file that nobody has tried on this machine.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from kedge_runtime import __version__
from kedge_runtime.checks.hardware import identity
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.engines.isolated import describe_exit
from kedge_runtime.errors import ArtefactError

SECONDS = 900.0  # for a large model on a slow board
# Added to the niceness while another model answers. With 19, a busy board would give so little time
# that a good model missed the time limits of its isolated engine.
BESIDE = 5
FAILED = 1  # the exit code of `kedge verify`
_CODE = (
    "import os, sys; sys.path[:] = {path!r}; sys.argv = {words!r}; os.nice({nice}); "
    "from kedge_runtime.pool import end_with; end_with({parent}); "
    "from kedge_runtime.cli import main; main()"
)


class RefusedUpdateError(Exception):
    """A model that must not be used here; the message says why."""


class UntriedError(ArtefactError):
    """A model that could not be tried: it may be good, so it is not noted as bad."""


def machine_of(engine: EngineOptions) -> str:
    """Return 16 hex digits for the software that a model is verified with."""
    known = identity()
    facts = [__version__, known["system"], known["python"], known["packages"], engine.engine]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def verify_apart(path: Path, engine: EngineOptions, nice: int = BESIDE) -> None:
    """Verify an artefact. Raises RefusedUpdateError with the first stage that fails.

    `nice`: 0 where nothing else has to answer meanwhile.
    """
    words = ["kedge", "verify", str(path), "--json", *_flags(engine)]
    code = _CODE.format(path=sys.path, words=words, parent=os.getpid(), nice=nice)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RefusedUpdateError(f"verify took more than {SECONDS:.0f} s") from None
    except OSError as error:
        raise UntriedError(f"{path}: no process for verify: {error}") from None
    if ended.returncode:
        raise RefusedUpdateError(_reason(ended))


def _flags(engine: EngineOptions) -> list[str]:
    given = {"--engine": engine.engine, "--threads": engine.threads}
    return [str(word) for pair in given.items() if pair[1] is not None for word in pair]


def _reason(ended: "subprocess.CompletedProcess[bytes]") -> str:
    """Return the failed stage, or how the process ended."""
    if ended.returncode != FAILED:
        line = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return f"verify ended by {describe_exit(ended.returncode)}: {line[:300]}".rstrip(": ")
    try:
        stages = json.loads(ended.stdout)["stages"]
        stage = next(stage for stage in stages if not stage["passed"])
        return f"verify failed at stage `{stage['name']}`: {stage['detail']}"
    except (ValueError, KeyError, TypeError, StopIteration):
        return "verify failed"
