"""Calling a compiler as a program of its own."""

import subprocess
from pathlib import Path

from kedge_convert.errors import ConversionError

TIMEOUT = 600  # seconds; the largest models of the zoo take one or two minutes


def call(command: list[str | Path]) -> str:
    """Return what a compiler says. Raises ConversionError with its last line when it fails."""
    name = Path(command[0]).name if "-m" not in command else str(command[2])
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConversionError(f"{name} can't be run ({error})") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()
        raise ConversionError(f"{name} refuses it: {said[-1]}")
    return done.stdout
