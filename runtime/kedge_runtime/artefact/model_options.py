"""Hold what the user says of a model file that kedge did not make."""

import shlex
from dataclasses import field
from pathlib import Path

from kedge_runtime.artefact.kinds import Kind
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.input_options import InputOptions


@dataclass(frozen=True)
class ModelOptions:
    """The user's options that describe a model file which kedge did not make; None where absent."""

    inputs: InputOptions = field(default_factory=InputOptions)
    labels: Path | None = None
    head: Kind | None = None
    threshold: float | None = None

    @property
    def given(self) -> bool:
        """Whether any is present, the threshold apart: that one is allowed for any file."""
        return self.inputs.given or self.labels is not None or self.head is not None

    def options(self) -> str:
        """Return the options as typed on a command line."""
        labels = f"--labels {shlex.quote(str(self.labels))}" if self.labels else ""
        head = f"--head {self.head}" if self.head else ""
        threshold = "" if self.threshold is None else f"--threshold {self.threshold:g}"
        return " ".join(filter(None, (labels, self.inputs.options(), head, threshold)))
