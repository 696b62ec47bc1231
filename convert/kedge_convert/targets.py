"""Targets, written `format:precision`: the allowed ones, and the names of their files."""

from collections.abc import Iterable
from dataclasses import dataclass

from kedge_runtime.artefact.contract import Precision
from kedge_runtime.errors import UsageError


@dataclass(frozen=True)
class Target:
    """One artefact to make; `format` is a key of `kedge_runtime.artefact.containers.FORMATS`."""

    format: str
    precision: Precision

    def __str__(self) -> str:
        """Return the target as on the command line."""
        return f"{self.format}:{self.precision}"

    def file_name(self, model: str) -> str:
        """Return the artefact's name, e.g. `mobilenet.int8.tflite`."""
        return f"{model}.{self.precision}.{self.format}"

    @property
    def needs_calibration(self) -> bool:
        """Whether activations become integers, whose ranges come from calibration images."""
        return self.precision in CALIBRATED


CALIBRATED = frozenset({"int8", "int16x8"})

TARGETS = (
    Target("tflite", "float32"),
    Target("tflite", "float16"),
    Target("tflite", "dynamic"),
    Target("tflite", "int8"),
    Target("tflite", "int16x8"),
    Target("onnx", "float32"),
    Target("onnx", "float16"),
    Target("onnx", "int8"),
)


def parse_targets(text: str) -> tuple[Target, ...]:
    """Read `all`, or a comma-separated list such as `tflite:int8,onnx:float32`.

    Raises UsageError naming the first part that isn't a target.
    """
    if text.strip() == "all":
        return TARGETS
    allowed = {str(target): target for target in TARGETS}
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts or [text]:
        if part not in allowed:
            raise UsageError(
                f"--to: got {part!r}, allowed are all, {', '.join(allowed)}{_meant(part, allowed)}"
            )
    return tuple(dict.fromkeys(allowed[part] for part in parts))


def _meant(part: str, allowed: Iterable[str]) -> str:
    """Return a suggestion for half a target, such as `int8` or `tflite`."""
    meant = [name for name in allowed if part.lower() in name.split(":")]
    return f"; did you mean {','.join(meant)}?" if meant else ""
