"""Check an artefact's drift in a project's own tests: `assert_no_drift` is a gate for pytest.

```python
from kedge_convert.testing import assert_no_drift

def test_the_shipped_model_is_as_good() -> None:
    assert_no_drift("flowers.int8.tflite", "flowers.keras", "images", max_drop="1pp")
```
"""

import shlex
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

from kedge_convert.drift.hooks import record
from kedge_convert.matrix.config import read_share
from kedge_convert.matrix.tables import side
from kedge_runtime.commands.arguments import read_drop
from kedge_runtime.drift.comparison import DriftRequest, compare, prepare
from kedge_runtime.drift.gates import Gate, Verdict
from kedge_runtime.drift.recording import Against
from kedge_runtime.drift.reference import SUFFIX
from kedge_runtime.drift.report import Drift, judged
from kedge_runtime.drift.sentences import needed
from kedge_runtime.drift.summary import GateLimits
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.files import temporary_folder
from kedge_runtime.printable import printable

# As --max-drop and kedge.toml read them.
LIMITS = {"max_drop": read_drop, "min_agreement": read_share}
Place = str | PathLike[str]


def assert_no_drift(
    artefact: Place, against: Place, images: Place, truth: str = "auto", **limits: float | str
) -> Drift:
    """Compare an artefact with its float model on a folder of images, as `kedge drift` does.

    `against`: a model, or a reference recorded from one; `truth`: as --truth; `limits`: max_drop
    or min_agreement, as in kedge.toml (`"1pp"`, `"98%"`); kedge drift's own without any.
    Returns the drift. Raises AssertionError unless the verdict is PASS: an inconclusive test must
    not be green. Raises KedgeError for what can't be compared, and for a wrong limit.
    """
    __tracebackhide__ = True  # pytest then shows the caller's line
    place = (Path(artefact),)
    request = DriftRequest(place, Path(images), truth, _read(limits), EngineOptions())
    comparison = prepare(request)
    model = Against(str(against), "imagenet", comparison.artefacts[0])
    with temporary_folder() as folder:
        reference = Path(model.model) if model.is_recorded else folder / f"it{SUFFIX}"
        if not model.is_recorded:
            record(model, comparison.images, reference)
        (drift,) = compare(comparison, reference)
    if drift.verdict != "PASS":
        raise AssertionError("\n".join(_lines(drift, model, Path(images))))
    return drift


def _read(written: Mapping[str, float | str]) -> GateLimits:
    if unknown := [name for name in written if name not in LIMITS]:
        raise UsageError(f"assert_no_drift: got {unknown[0]}, allowed are {', '.join(LIMITS)}")
    try:
        return GateLimits(**{name: LIMITS[name](value) for name, value in written.items()})
    except ValueError as error:
        raise UsageError(f"assert_no_drift: {error}") from None


LISTED = 5  # flipped images in the message
REMEDIES: dict[Verdict, str] = {
    "FAIL": "to see what lost it",
    "INCONCLUSIVE": "give more images or a wider limit; for the figures",
}


def _lines(drift: Drift, model: Against, images: Path) -> Iterator[str]:
    """Yield the message: the gates, some flipped images, and what to do."""
    artefact = drift.artefact.path
    for gate in drift.gates:
        if gate.verdict != "PASS":
            yield printable(f"{artefact}: {_judged(gate, drift.images)}")
    flips, listed = drift.flips.count, drift.flips.listed[:LISTED]
    if flips:
        yield f"{flips} of {counted(drift.images, 'image')} answered otherwise:"
    for flip in listed:
        sides = " -> ".join(map(side, (flip.reference, flip.artefact)))
        yield printable(f"  {flip.image}: {sides}{f' ({flip.truth})' if flip.truth else ''}")
    if flips > len(listed):
        yield f"  and {flips - len(listed)} more"
    yield printable(f"{REMEDIES[drift.verdict]}: {_command(drift, model, images)}")


def _judged(gate: Gate, images: int) -> str:
    more = f"; {needed(gate, images)}" if gate.images_needed else ""
    return f"{gate.verdict} {gate.name}: {judged(gate)}{more}"


def _command(drift: Drift, model: Against, images: Path) -> str:
    words = ["kedge", "drift", drift.artefact.path, "--images", str(images)]
    words += ["--against", model.model]
    # Only the model itself has the steps between it and the artefact.
    steps = drift.verdict == "FAIL" and not model.is_recorded
    return shlex.join([*words, *(["--attribute", "100"] if steps else [])])
