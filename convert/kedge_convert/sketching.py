"""Add a sketch of what an artefact sees in calibration and validation (docs/field.md)."""

from functools import partial
from pathlib import Path

from kedge_convert.convertible import Convertible
from kedge_convert.fitting.subject import true_outputs
from kedge_convert.images import fitted
from kedge_convert.spread import Run, spread
from kedge_convert.staging import write
from kedge_convert.targets import Target
from kedge_convert.worker.progress import Progress
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.file import artefact_of, with_sketch
from kedge_runtime.artefact.kinds import Precision
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.field.sketch import LEAST
from kedge_runtime.field.sketching import measured, sketch_frames
from kedge_runtime.output import quiet

# Images of the sketch of a file of slow kernels (.2 s an image).
SKETCHED: dict[Precision, int] = {"int16x8": 100}
NOTE = f"no sketch for `kedge drift --field`: it takes at least {LEAST} images"


def add(path: Path, target: Target, model: Convertible, progress: Progress) -> tuple[str, ...]:
    """Seal a file again with its sketch; return a note where the images are too few for one.

    A model of features has no classes to hold a stream against, and gets none.
    """
    source, images = model.source, model.images
    paths = (*images.validation, *images.calibration)[: SKETCHED.get(target.precision)]
    if source.output.kind == "features":
        return ()
    if len(paths) < LEAST:
        return (NOTE,)
    truth = None if source.output.multi_label else true_outputs(paths, source)
    content = read_content(path)

    def opened(threads: int | None) -> Run[Path]:
        with quiet():
            return partial(_numbers, Classifier.of(content, EngineOptions(threads)))

    with progress.stage(f"sketch {target}", len(paths)) as tick:
        rows = spread(opened, len(content.data), paths, tick)
    with quiet():
        classifier = Classifier.of(content, EngineOptions())
    pairs = zip(fitted(paths, source.input), rows, strict=True)
    frames = [measured(classifier, pixels, row) for pixels, row in pairs]
    sketch = sketch_frames(classifier, frames, truth)
    write(path, with_sketch(content, artefact_of(content), sketch))
    return ()


def _numbers(classifier: Classifier, path: Path) -> Floats:
    (pixels,) = fitted([path], classifier.contract.input)
    return classifier.numbers(classifier.engine.run(classifier.preprocessor.look_up(pixels)))
