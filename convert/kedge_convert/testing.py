"""Check an artefact's drift in a project's own tests: `assert_no_drift` is a gate for pytest.

```python
from kedge_convert.testing import assert_no_drift
from kedge_runtime.files import temporary_folder

def test_the_shipped_model_is_as_good() -> None:
    assert_no_drift("flowers.int8.tflite", "flowers.keras", "images", max_drop=0.01)
```
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from kedge_convert.drift.hooks import record
from kedge_convert.matrix.config import read_share
from kedge_runtime.commands.arguments import read_drop
from kedge_runtime.drift.comparison import DriftRequest, compare, prepare
from kedge_runtime.drift.gates import Gate
from kedge_runtime.drift.recording import Against
from kedge_runtime.drift.reference import SUFFIX
from kedge_runtime.drift.report import Drift, judged
from kedge_runtime.drift.summary import GateLimits
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import UsageError
from kedge_runtime.files import temporary_folder

# As --max-drop and kedge.toml read them.
LIMITS = {"max_drop": read_drop, "min_agreement": read_share}
Place = str | PathLike[str]


def assert_no_drift(
    artefact: Place, against: Place, images: Place, truth: str = "auto", **limits: float | str
) -> Drift:
    """Compare an artefact with its float model on a folder of images, as `kedge drift` does.

    `against`: a model, or a reference recorded from one; `truth`: as --truth; `limits`: max_drop
    or min_agreement, as in kedge.toml (`.01`, `"1pp"`, `"98%"`); kedge drift's own without any.
    Returns the drift. Raises AssertionError unless the verdict is PASS: an inconclusive test must
    not be green. Raises KedgeError for what can't be compared, and for a wrong limit.
    """
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
        raise AssertionError(f"{artefact}: {'; '.join(map(_message, drift.gates))}")
    return drift


def _read(written: Mapping[str, float | str]) -> GateLimits:
    if unknown := [name for name in written if name not in LIMITS]:
        raise UsageError(f"assert_no_drift: got {unknown[0]}, allowed are {', '.join(LIMITS)}")
    try:
        return GateLimits(**{name: LIMITS[name](value) for name, value in written.items()})
    except ValueError as error:
        raise UsageError(f"assert_no_drift: {error}") from None


def _message(gate: Gate) -> str:
    needed = gate.images_needed
    more = f"; about {needed} images would decide" if needed else ""
    return f"{gate.verdict} {gate.name}: {judged(gate)}{more}"
