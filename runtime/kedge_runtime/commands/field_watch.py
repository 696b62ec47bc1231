"""Hold the frames of `kedge watch` and `kedge serve` against the sketch of their artefact."""

from collections.abc import Sequence
from pathlib import Path

from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.predictor import Predictor
from kedge_runtime.errors import ArtefactError, UsageError
from kedge_runtime.field.monitor import Monitor, MonitorOptions
from kedge_runtime.files import unwritable
from kedge_runtime.output import note, say
from kedge_runtime.streams.events import Observer

# Hex digits of the artefact's digest in the name of its state.
_DIGITS = 12


def field_observers(model: Predictor, folder: Path, *, live: bool) -> Sequence[Observer]:
    """Return the monitor of a camera's frames, or none for a model without a sketch.

    A video has no clock of its own to thin its frames by: `kedge drift --field` takes it. `folder`:
    for the state. Raises UsageError for a folder that can't be made.
    """
    if not live or not isinstance(model, Classifier) or model.artefact.sketch is None:
        return ()
    digest = model.artefact.digest.removeprefix("sha256:")[:_DIGITS]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--state: {folder}: {unwritable(error)}; choose another place") from None
    try:
        monitor = Monitor(model.artefact, MonitorOptions(folder / f"field-{digest}.state"))
    except ArtefactError as error:
        # The camera's answers are worth more than the tests on them.
        say(f"no field drift: {error}")
        return ()
    note(f"holding frames against the sketch of {model.artefact.sketch.images} images")
    return (monitor,)
