"""Add a sketch of what an artefact sees in the images of its conversion (docs/field.md)."""

import numpy as np

from kedge_convert.convertible import Convertible
from kedge_convert.fitting.subject import true_outputs
from kedge_convert.images import fitted
from kedge_convert.parity import AskedFile
from kedge_convert.staging import write
from kedge_convert.targets import Target
from kedge_convert.worker.progress import Progress
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.file import artefact_of
from kedge_runtime.artefact.kinds import Precision
from kedge_runtime.artefact.reseal import resealed
from kedge_runtime.field.measure import image_statistics
from kedge_runtime.field.sketch import LEAST
from kedge_runtime.field.sketching import sketch_answers

# Images of the sketch of a file of slow kernels (.2 s an image).
SKETCHED: dict[Precision, int] = {"int16x8": 100}
NOTE = f"no sketch for `kedge drift --field`: it takes at least {LEAST} images"


def add(file: AskedFile, target: Target, model: Convertible, progress: Progress) -> tuple[str, ...]:
    """Seal a file again with its sketch; return a note where the images are too few for one.

    The sketch takes as many images as calibrated and checked the file: those that it answered so
    far, then calibration images. A model of features has no classes to hold a stream against, and
    gets none.
    """
    source, images = model.source, model.images
    count = SKETCHED.get(target.precision, len(images.validation) + len(images.calibration))
    paths = tuple(dict.fromkeys((*file.rows, *images.validation, *images.calibration)))[:count]
    if source.output.kind == "features":
        return ()
    if len(paths) < LEAST:
        return (NOTE,)
    truth = None if source.output.multi_label else true_outputs(paths, source)
    left = [path for path in paths if path not in file.rows]
    if left:
        with progress.stage(f"sketch {target}", len(left)) as tick:
            file.ask(left, tick, at_size=True)
    content = read_content(file.path)
    contract = artefact_of(content).contract
    answers = np.stack([file.rows[path] for path in paths])
    looks = map(image_statistics, fitted(paths, source.input))
    sketch = sketch_answers(contract, answers, looks, truth)
    write(file.path, *resealed(content, contract, sketch))
    return ()
