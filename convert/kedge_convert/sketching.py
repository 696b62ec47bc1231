"""Add a sketch of what an artefact sees in calibration and validation (docs/field.md)."""

from pathlib import Path

from kedge_convert.convertible import Convertible
from kedge_convert.fitting.subject import true_outputs
from kedge_convert.images import fitted
from kedge_convert.staging import write
from kedge_convert.targets import Target
from kedge_convert.worker.progress import Progress
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.file import artefact_of, with_sketch
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.field.sketch import LEAST
from kedge_runtime.field.sketching import sketch_images
from kedge_runtime.output import quiet

NOTE = f"no sketch for `kedge drift --field`: it takes at least {LEAST} images"


def add(path: Path, target: Target, model: Convertible, progress: Progress) -> tuple[str, ...]:
    """Seal a file again with its sketch; return a note where the images are too few for one.

    A model of features has no classes to hold a stream against, and gets none.
    """
    source, images = model.source, model.images
    paths = (*images.validation, *images.calibration)
    if source.output.kind == "features":
        return ()
    if len(paths) < LEAST:
        return (NOTE,)
    truth = None if source.output.multi_label else true_outputs(paths, source)
    content = read_content(path)
    with quiet():
        classifier = Classifier.of(content, EngineOptions())
    with classifier, progress.stage(f"sketch {target}", len(paths)) as tick:
        sketch = sketch_images(classifier, fitted(paths, source.input), truth, tick)
    write(path, with_sketch(content, artefact_of(content), sketch))
    return ()
