"""The rows of `model_files.py`, one a file, and their table: what did not pass has a line below."""

from collections import Counter
from dataclasses import dataclass, field

from kedge_runtime.errors import counted

INTRODUCTION = """\
# Model files as people have them

`benchmarks/model_files.py` writes this page. Each row is a file that its own program saved
(`tests/helpers/make_model_files.py`). kedge converts it to `tflite:float32`, `tflite:int8` and
`onnx:float32` with the options of its user, and 12 images are classified.

- **model**: largest difference in probability between the artefact and the model in its own
  framework, on the tensors that the framework loaded. The limit is 1e-3 for float32
  (1e-2 for `mixed_float16`, 0.1 for quantisation-aware training, whose float model rounds).
- **own pixels**: the same from the image files: kedge's decoder and resizing against the user's.
- **int8**: share of the images with the framework's best class, on the framework's tensors.

`passed`: all three artefacts. `rejected`: kedge made an artefact and rejected it. `wrong`: kedge
passed an artefact that misses the limit. `refused`: kedge made nothing.
"""
HEADER = "| shape | program | container | pixels | verdict | model | own pixels | int8 |"


@dataclass(frozen=True)
class Judged:
    """One artefact against the framework. Errors are largest differences in probability.

    `model_error`: on the framework's own tensors. `pixel_error`, `agreement`: from image files.
    """

    passed: bool
    reason: str = ""
    model_error: float | None = None
    model_agreement: float | None = None
    pixel_error: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class Row:
    """One model file. `refusal`: kedge's line where it made nothing; `exit_code`: of the command.

    `exact`: what the difference of a float32 artefact is held against.
    """

    name: str
    shape: str
    program: str
    container: str
    pixels: str
    limit: float
    exit_code: int
    refusal: str = ""
    targets: dict[str, Judged] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """Return `passed`, `refused`, `rejected` (by kedge itself) or `wrong` (passed, but not)."""
        if self.exit_code not in (0, 1):
            return "refused"
        if not self.targets:
            return "crashed"
        floats = [each for name, each in self.targets.items() if name.endswith("float32")]
        if any(each.passed and not _within(each, self.limit) for each in floats):
            return "wrong"
        return "passed" if all(each.passed for each in self.targets.values()) else "rejected"


def _within(judged: Judged, limit: float) -> bool:
    return judged.model_error is not None and judged.model_error <= limit


def markdown(rows: list[Row]) -> str:
    """Return the page."""
    counts = Counter(row.verdict for row in rows)
    total = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    lines = [
        INTRODUCTION,
        f"{counted(len(rows), 'file')}: {total}.",
        "",
        HEADER,
        f"|{' --- |' * 8}",
    ]
    lines += [_row(row) for row in rows]
    reasons = [f"- `{row.name}`: {reason}" for row in rows for reason in _reasons(row)]
    if reasons:
        lines += ["", "## Not passed", "", *reasons]
    return "\n".join(lines) + "\n"


def _row(row: Row) -> str:
    floats = [each for name, each in row.targets.items() if name.endswith("float32")]
    integers = row.targets.get("tflite:int8")
    share = integers.model_agreement if integers else None
    program = row.program.replace(" (", ": ").rstrip(")")
    cells = [row.shape, program, row.container, row.pixels, row.verdict]
    cells += [_worst(floats, "model_error"), _worst(floats, "pixel_error")]
    return f"| {' | '.join([*cells, '' if share is None else f'{share:.2f}'])} |"


def _worst(judged: list[Judged], name: str) -> str:
    values = [value for each in judged if (value := getattr(each, name)) is not None]
    return f"{max(values):.1e}" if values else ""


def _reasons(row: Row) -> list[str]:
    if row.refusal:
        return [row.refusal]
    if row.verdict == "wrong":
        return [f"differs by more than {row.limit:g} on the framework's own tensors"]
    return [f"{name}: {each.reason}" for name, each in row.targets.items() if each.reason]
