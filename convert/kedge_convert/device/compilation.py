"""Call a compiler as a program, and seal its output like the artefact."""

import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from kedge_convert.toolkit import ConversionError
from kedge_runtime.artefact.file import is_sealed, read_artefact, seal
from kedge_runtime.modelfile.report import model_end

TIMEOUT = 600  # seconds; the largest models of the zoo take one or two minutes


def call(command: list[str | Path]) -> str:
    """Return a compiler's stdout. Raises ConversionError with its last line when it fails."""
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
        output = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()
        raise ConversionError(f"{name} refuses it: {output[-1]}")
    return done.stdout


@dataclass(frozen=True)
class Row:
    """The number of operators of a kind, and their status in the compiler's own words."""

    kind: str
    count: int
    status: str


@dataclass(frozen=True)
class Compilation:
    """`compiler`: its name and version. `mapped`: operators on the accelerator, of `operators`.

    `figures`: memory and time by the compiler, under names that end in their unit
    (docs/inspect.md).
    """

    compiler: str
    mapped: int
    operators: int
    rows: tuple[Row, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The share of operators on the accelerator, 0..1."""
        return self.mapped / max(self.operators, 1)


def reseal(path: Path, compiled: Path, compiler: str) -> bytes:
    """Return a compiled model with the contract, labels and golden images of the file at `path`.

    The compiler's name joins the tools of the provenance. The bit-exact golden outputs are dropped:
    their kernels can't run compiled code. An unsealed file gives the bare model.
    """
    content = compiled.read_bytes()
    model = content[: model_end(content)]
    if not is_sealed(path):
        return content
    artefact = read_artefact(path)
    name, _, version = compiler.partition(" ")
    origin = artefact.contract.provenance
    provenance = replace(origin, tools={**origin.tools, name: version})
    contract = replace(artefact.contract, provenance=provenance)
    golden = replace(artefact.golden, exact=np.zeros((0, 0), np.int8))
    return seal("tflite", model, contract, golden)
