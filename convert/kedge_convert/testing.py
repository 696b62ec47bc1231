"""Check an artefact's drift in a project's own tests: `assert_no_drift` is a gate for pytest.

```python
from kedge_convert.testing import assert_no_drift
from kedge_runtime.files import temporary_folder

def test_the_shipped_model_is_as_good() -> None:
    assert_no_drift("flowers.int8.tflite", "flowers.keras", "images", max_drop=0.01)
```
"""

from os import PathLike
from pathlib import Path

from kedge_convert.drift.hooks import record
from kedge_runtime.drift.comparison import DriftRequest, compare, prepare
from kedge_runtime.drift.gates import Gate
from kedge_runtime.drift.recording import Against
from kedge_runtime.drift.reference import SUFFIX
from kedge_runtime.drift.report import Drift, judged
from kedge_runtime.drift.summary import GateLimits
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.files import temporary_folder

Place = str | PathLike[str]


def assert_no_drift(
    artefact: Place, against: Place, images: Place, truth: str = "auto", **limits: float
) -> Drift:
    """Compare an artefact with its float model on a folder of images, as `kedge drift` does.

    `against`: a model, or a reference recorded from one; `truth`: as --truth; `limits`: max_drop
    or min_agreement, shares of 0..1, kedge drift's own without any. Returns the drift. Raises
    AssertionError unless the verdict is PASS: an inconclusive test must not be green. Raises
    KedgeError for what can't be compared.
    """
    place = (Path(artefact),)
    request = DriftRequest(place, Path(images), truth, GateLimits(**limits), EngineOptions())
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


def _message(gate: Gate) -> str:
    needed = gate.images_needed
    more = f"; about {needed} images would decide" if needed else ""
    return f"{gate.verdict} {gate.name}: {judged(gate)}{more}"
