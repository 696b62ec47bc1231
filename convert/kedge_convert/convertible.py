"""The float model in the operators that all formats have, and how each target is exported from it.

`Convertible` exports as the format does. `Prepared` has integer candidates and, with a budget, a
search for the layers that stay float.
"""

from dataclasses import dataclass, replace

from kedge_convert.export.exported import Exported, ExportOptions, Recipe, Scheme
from kedge_convert.export.formats import FORMATS
from kedge_convert.images import ImageSplit
from kedge_convert.job import PreparationRequest
from kedge_convert.program.preparable import preparable
from kedge_convert.quantise import candidates, search
from kedge_convert.quantise.candidates import CandidateModels
from kedge_convert.quantise.search import Search
from kedge_convert.rewrite import lowering
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_convert.worker.progress import PREPARATION, Progress
from kedge_runtime.output import quiet

UNPREPARED = "preparation: {}; integer targets get the stock weights"
PARTLY = "preparation: {}; only the layers of Keras's own get prepared weights"
UNTRIED = (
    "budget: only prepared layers can stay float, so no mixed file is tried; choose "
    "tflite:float16 or onnx:float16 instead"
)
TRIED = 4  # images on which an export is tried before it is used


@dataclass(frozen=True)
class Convertible:
    """A model to export. `scheme`: the layout of its integers."""

    source: Source
    images: ImageSplit
    scheme: Scheme

    def export(self, target: Target, progress: Progress) -> tuple[Recipe, Exported]:
        """Return the unsealed file of a target, and how it was made. Raises ConversionError."""
        calibration = self.images.calibration if target.needs_calibration else ()
        with progress.stage(f"export {target}", len(calibration) or None) as tick:
            options = ExportOptions(calibration, self.scheme, tick)
            file = FORMATS[target.format].export(self.source, target.precision, options)
        return Recipe(target.precision), file


@dataclass(frozen=True)
class Prepared(Convertible):
    """A model whose integer targets are chosen among candidates. `search`: only with a budget."""

    models: CandidateModels
    search: Search | None = None

    def export(self, target: Target, progress: Progress) -> tuple[Recipe, Exported]:
        """Return the nearest integer model or, with a budget, the cheapest that holds it."""
        if not target.needs_calibration:
            return super().export(target, progress)
        chosen = candidates.closest_weights(target, self.models, progress)
        if self.search and target.precision == "int8" and not self.search.holds(chosen):
            chosen = search.cheapest(target, self.search, chosen, progress)
        return chosen.recipe, Exported(chosen.content, chosen.notes)


def rewrite(
    source: Source, images: ImageSplit, names: tuple[str, ...], progress: Progress
) -> Source:
    """Return the same function in plainer operators: what all formats need, and `names`."""
    rewritten = lowering.rewrite(source.model, names)
    for note in rewritten.notes:
        progress.note(note)
    return replace(source, model=rewritten.model, images=images.calibration[:TRIED])


def prepare(
    source: Source,
    images: ImageSplit,
    request: PreparationRequest,
    progress: Progress,
) -> Convertible:
    """Prepare the weights of integer targets, where they are asked for and possible."""
    options = request.options
    if not options.formats:
        return Convertible(source, images, options.scheme)
    able = _preparable(source, images, progress) if request.enabled else None
    if able is None:
        if request.budget:
            progress.say(UNTRIED)
        return Convertible(source, images, options.scheme)
    # Stock candidates come from the source itself: an export may know its layers better.
    models = replace(candidates.prepare(able, images, options, progress), stock=source)
    ladder = search.search(models, request.budget, progress) if request.budget else None
    return Prepared(source, images, options.scheme, models, ladder)


def _preparable(source: Source, images: ImageSplit, progress: Progress) -> Source | None:
    """Return the source in layers that can be prepared; say why some can't be."""
    progress.start_part(PREPARATION)
    with progress.stage("find layers"), quiet():
        found = preparable(source, images)
    if found.reason:
        line = UNPREPARED if found.source is None else PARTLY
        progress.note(line.format(found.reason))
    return found.source
