"""Call a compiler as a program, and seal its file as the artefact is sealed."""

import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from kedge_convert.toolkit import ConversionError
from kedge_runtime.artefact.file import is_sealed, read_artefact, seal
from kedge_runtime.modelfile.report import model_end

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


@dataclass(frozen=True)
class Row:
    """So many operators of a kind, and what became of them in the compiler's own words."""

    kind: str
    count: int
    status: str


@dataclass(frozen=True)
class Compilation:
    """`compiler`: its name and version. `mapped`: operators on the accelerator, of `operators`.

    `figures`: what the compiler says of memory and time, by names that end in their unit:
    docs/inspect.md lists them.
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


def reseal(original: Path, compiled: Path, compiler: str) -> bytes:
    """Return the compiled model with the original's contract, labels and golden pictures.

    The compiler's name joins the tools of its provenance. The bit-exact answers are dropped: the
    kernels that give them can't run what is compiled. An unsealed original gives the bare model.
    """
    content = compiled.read_bytes()
    model = content[: model_end(content)]
    if not is_sealed(original):
        return content
    artefact = read_artefact(original)
    name, _, version = compiler.partition(" ")
    made = artefact.contract.provenance
    provenance = replace(made, tools={**made.tools, name: version})
    contract = replace(artefact.contract, provenance=provenance)
    golden = replace(artefact.golden, exact=np.zeros((0, 0), np.int8))
    return seal("tflite", model, contract, golden)
