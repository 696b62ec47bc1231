"""The float model in the operators that all formats have, and how each target is exported from it.

`Convertible` exports as the format does. `Prepared` has integer candidates and, with a budget, a
search for the layers that stay float. With a budget a target has several attempts, each wider.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from kedge_convert.export.exported import Exported, ExportOptions, Recipe, Scheme
from kedge_convert.export.formats import FORMATS
from kedge_convert.images import ImageSplit
from kedge_convert.job import PreparationRequest
from kedge_convert.memory import StoredBytes
from kedge_convert.program.preparable import preparable
from kedge_convert.quantise import candidates, finer, search
from kedge_convert.quantise.candidates import CandidateModels
from kedge_convert.quantise.comparing import Candidate
from kedge_convert.quantise.finer import Finer
from kedge_convert.quantise.search import Search
from kedge_convert.rewrite import lowering
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_convert.worker.progress import PREPARATION, Progress
from kedge_runtime.output import quiet

UNPREPARED = "preparation: {}; integer targets get the stock weights"
PARTLY = "preparation: {}; only the layers of Keras's own get prepared weights"
UNTRIED = (
    "budget: only prepared layers can stay float, so no mixed file is tried; an int8 file that "
    "misses becomes float16"
)
TRIED = 4  # images on which an export is tried before it is used


@dataclass(frozen=True)
class ExportAttempt:
    """An unsealed file of a target, and how it was made.

    `notes`: as of Exported. `widest`: no other one is left. `misses`: a line for each one that was
    tried before it.
    """

    target: Target
    recipe: Recipe
    stored: StoredBytes
    notes: tuple[str, ...] = ()
    widest: bool = True
    misses: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, target: Target, recipe: Recipe, exported: Exported, *, widest: bool = True
    ) -> "ExportAttempt":
        """Return the attempt of a file, which is held no longer where it is a long one."""
        return cls(target, recipe, StoredBytes(exported.content), exported.notes, widest)

    @property
    def exported(self) -> Exported:
        """The file, read anew where it is a long one."""
        return Exported(self.stored.read(), self.notes)


@dataclass(frozen=True)
class Convertible:
    """A model to export.

    `scheme`: the layout of its integers. `climbs`: an int8 file that misses becomes float16.
    """

    source: Source
    images: ImageSplit
    scheme: Scheme
    climbs: bool = False

    def attempts(self, target: Target, progress: Progress) -> Iterator[ExportAttempt]:
        """Yield the files of a target, each wider than the one before. Raises ConversionError."""
        climbs = self.climbs and target.precision == "int8"
        made = self._export(target, progress)
        first = ExportAttempt.of(target, Recipe(target.precision), made, widest=not climbs)
        del made  # the file is checked meanwhile, and runs from a copy of its own
        yield first
        if climbs:
            wide = self._export(replace(target, precision="float16"), progress)
            recipe = Recipe("float16")
            price = search.price(target.format, recipe, wide.content, first.exported.content)
            yield ExportAttempt.of(target, recipe, replace(wide, notes=(*wide.notes, price)))

    def _export(self, target: Target, progress: Progress) -> Exported:
        calibration = self.images.calibration if target.needs_calibration else ()
        with progress.stage(f"export {target}", len(calibration) or None) as tick:
            options = ExportOptions(calibration, self.scheme, tick)
            return FORMATS[target.format].export(self.source, target.precision, options)


@dataclass(frozen=True)
class Prepared(Convertible):
    """A model whose integer targets are chosen among candidates.

    `finer`: those with copied channels; `search`: only with a budget.
    """

    models: CandidateModels | None = None
    finer: Finer | None = None
    search: Search | None = None

    def attempts(self, target: Target, progress: Progress) -> Iterator[ExportAttempt]:
        """Yield the nearest integer model or, with a budget, from the cheapest likely to hold."""
        if not target.needs_calibration or self.models is None:
            yield from super().attempts(target, progress)
            return
        chosen = candidates.closest_weights(target, self.models, progress)
        if self.finer is not None:
            chosen = finer.closest(target, self.finer, chosen, progress)
        if self.search is None or target.precision != "int8":
            yield _attempt(target, chosen, widest=True)
            return
        for rung in search.rungs(target, self.search, chosen, progress):
            yield _attempt(target, rung, widest=rung.recipe.precision == "float16")


def _attempt(target: Target, candidate: Candidate, *, widest: bool) -> ExportAttempt:
    exported = Exported(candidate.content, candidate.notes)
    return ExportAttempt.of(target, candidate.recipe, exported, widest=widest)


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
    able = _preparable(source, images, progress) if options.effort.prepares else None
    if able is None:
        if request.budget:
            progress.say(UNTRIED)
        return Convertible(source, images, options.scheme, bool(request.budget))
    # Stock candidates come from the source itself: an export may know its layers better.
    models = candidates.prepare(able, images, options, progress, stock=source)
    ladder = search.search(models, request.budget, progress) if request.budget else None
    copies = finer.finer(models, progress) if options.effort.refines else None
    return Prepared(source, images, options.scheme, models=models, finer=copies, search=ladder)


def _preparable(source: Source, images: ImageSplit, progress: Progress) -> Source | None:
    """Return the source in layers that can be prepared; say why some can't be."""
    progress.start_part(PREPARATION)
    with progress.stage("find layers"), quiet():
        found = preparable(source, images)
    if found.reason:
        line = UNPREPARED if found.source is None else PARTLY
        progress.note(line.format(found.reason))
    return found.source
