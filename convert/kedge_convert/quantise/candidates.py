"""Make several integer models of one network and choose the closest to the float model.

Candidates: stock and prepared weights, for int8 each with each method for the activations' ranges.
Selection images, to which no weights are fitted, decide between them.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kedge_convert import contract_builder
from kedge_convert.export import structure
from kedge_convert.export.exported import PLAIN, ExportOptions, Recipe, Scheme
from kedge_convert.export.formats import FORMATS
from kedge_convert.images import ImageSplit, forget_others, tensors
from kedge_convert.memory import give_back
from kedge_convert.prepare import preparation
from kedge_convert.prepare.graph import Graph
from kedge_convert.prepare.preparation import Grids
from kedge_convert.program import answering
from kedge_convert.quantise.comparing import (
    Candidate,
    closest_ranges,
    divergences,
    gains,
    roots,
)
from kedge_convert.quantise.effort import DEFAULT, Effort
from kedge_convert.quantise.observing import observed
from kedge_convert.quantise.ranges import BY_ANSWERS, choose
from kedge_convert.quantise.static import STATIC
from kedge_convert.source import Source
from kedge_convert.spread import spread
from kedge_convert.targets import Target
from kedge_convert.toolkit import ConversionError
from kedge_convert.worker.progress import Progress
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.file import Artefact
from kedge_runtime.artefact.kinds import Method, Precision
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.errors import EngineError
from kedge_runtime.output import quiet

# There are few selection images, and the best of several noisy figures flatters itself. So the best
# rivals of min-max are held against it on so many other calibration images, too, where all have the
# same weights.
CONFIRMING = 128
# Weights that were fitted to so many images are seldom worse than stock: the selection must say so
# by a standard error.
FITTED, LIKELY_STOCK = 100, 1.0
# Selection images that judge a file of slow kernels; its candidates differ by their weights alone,
# and prepared ones have a tenth of stock's divergence.
JUDGING: dict[Precision, int] = {"int16x8": 12}
# Calibration images whose ranges tell whether stock weights have a chance; they have none where
# they are so many times as far from the float model as prepared ones with the same images' ranges.
FEW, HOPELESS = 24, 3.0
FASTEST = "tflite"  # to quantise, and to run the selection images
# Errors of one candidate; as long as there is another one, it is skipped.
FAULTS = (ConversionError, EngineError)
LOG = logging.getLogger("kedge")


@dataclass(frozen=True)
class QuantisationOptions:
    """How to quantise: repeatable by `seed`, laid out by `scheme`, in which `formats`; `effort`."""

    seed: int = 0
    scheme: Scheme = PLAIN
    formats: tuple[str, ...] = tuple(STATIC)
    effort: Effort = DEFAULT

    def grids(self, format: str) -> Grids:
        """Return the grids of a format's prepared weights."""
        return STATIC[format].grids(self.scheme)


@dataclass(frozen=True)
class CandidateModels:
    """The Keras models that candidates are exported from: stock, and with prepared weights.

    `equalised`: the graph that the `prepared` weights were rounded from. `logits`: the float
    model's on the selection images, [images, classes]. `methods`: for the ranges of a format's
    stock or prepared weights, once a format chose it. `hopeless`: the grids on which an int8 file
    showed that stock weights are. `confirming`: the float model's logits on CONFIRMING images, once
    they were asked for. `confirmed`: candidates' distances there, by the digest of their content.
    """

    stock: Source
    prepared: dict[Grids, Source]
    equalised: Graph
    images: ImageSplit
    options: QuantisationOptions
    logits: Floats
    methods: dict[tuple[Grids, Method], tuple[str, ...]] = field(default_factory=dict)
    hopeless: set[Grids] = field(default_factory=set)
    confirming: list[Floats] = field(default_factory=list)
    confirmed: dict[bytes, NDArray[np.float64]] = field(default_factory=dict)

    def by_method(self, method: Method, format: str) -> Source:
        """Return the model of a format's candidates."""
        return self.stock if method == "stock" else self.prepared[self.options.grids(format)]


def prepare(
    source: Source,
    images: ImageSplit,
    options: QuantisationOptions,
    progress: Progress,
    stock: Source | None = None,
) -> CandidateModels:
    """Prepare the weights for the integer targets: once for all formats with the same grids.

    `stock`: the source of stock candidates, by default the one that is prepared.
    """
    stock = stock or source
    graph = preparation.plan(source.model)
    inputs = preparation_inputs(source, images)
    forget_others(source.input)  # that were tried for it
    give_back()  # no other steps need as much as the next ones
    all_grids = dict.fromkeys(map(options.grids, options.formats))
    prepared = {}
    with progress.stage("prepare weights", len(graph.nodes) * len(all_grids)) as tick, quiet():
        per_channel = options.scheme.per_channel
        equalised = preparation.equalised(graph, inputs, per_channel=per_channel)
        # A copy: the others take memory that rounding needs.
        inputs = inputs[: preparation.affordable(equalised, len(inputs))].copy()
        give_back()
        for grids in all_grids:
            rounding = preparation.Rounding(options.seed, grids=grids)
            rounded = preparation.round_weights(equalised, inputs, rounding, tick)
            prepared[grids] = replace(source, model=rounded.build())
    logits = answering.logits(stock, tensors(images.selection, stock.input))
    return CandidateModels(stock, prepared, equalised, images, options, logits)


def preparation_inputs(source: Source, images: ImageSplit) -> Floats:
    """Return the images that weights are fitted to, float32 [n, h, w, 3]."""
    return np.concatenate(list(tensors(images.preparation, source.input)))


def closest_weights(target: Target, models: CandidateModels, progress: Progress) -> Candidate:
    """Return the candidate that is closest to the float model.

    Stock weights are one only where a look at few images leaves them a chance. Raises their error
    where no candidate can be made.
    """
    make = ranged if target.precision == "int8" else exported
    try:
        rival = make(target, models, progress, "prepared")
    except FAULTS:
        LOG.info("%s: no candidate", target, exc_info=True)
        return exported(target, models, progress, "stock")
    try:
        if is_hopeless(target, models, progress):
            return rival
        stock = make(target, models, progress, "stock")
    except FAULTS:
        LOG.info("%s: no candidate", target, exc_info=True)
        return rival
    return stock if _stock_wins(target, models, stock, rival) else rival


def _stock_wins(
    target: Target, models: CandidateModels, stock: Candidate, rival: Candidate
) -> bool:
    """Whether stock weights are closer: int8 files also on images that the rival was fitted to.

    That favours the rival, which is the safe side: stock weights are seldom better on others.
    """
    if target.precision == "int8":
        gain = all_distances(target, models, rival) - all_distances(target, models, stock)
    else:
        gain = rival.distances - stock.distances
    surely = len(models.images.preparation) >= FITTED
    return gains(gain, LIKELY_STOCK if surely else 0.0)


def is_hopeless(target: Target, models: CandidateModels, progress: Progress) -> bool:
    """Whether stock weights are far behind prepared ones, both with the ranges of few images.

    It spares an observation of their float model over all calibration images. An int8 file decides
    for all later ones: the weights are the same, and 16-bit activations only add less noise.
    """
    if len(models.images.calibration) < 2 * FEW:
        return False
    grids = models.options.grids(target.format)
    if grids in models.hopeless:
        return True
    methods: tuple[Method, ...] = ("stock", "prepared")
    stock, rival = (exported(target, models, progress, each, FEW).kl for each in methods)
    behind = bool(stock.mean() > HOPELESS * rival.mean())
    if behind and target.precision == "int8":
        models.hopeless.add(grids)
    return behind


def exported(
    target: Target,
    models: CandidateModels,
    progress: Progress,
    method: Method,
    images: int | None = None,
) -> Candidate:
    """Export by the format's own quantiser, with ranges of the first `images`, None for all."""
    source, calibration = models.by_method(method, target.format), models.images.calibration
    calibration = calibration[:images]
    with progress.stage(f"export {target}, {method}", len(calibration)) as tick:
        options = ExportOptions(calibration, models.options.scheme, tick)
        file = FORMATS[target.format].export(source, target.precision, options)
    recipe = Recipe(target.precision, method, "minmax")
    return replace(judged(target, models, file.content, recipe), notes=file.notes)


def ranged(
    target: Target, models: CandidateModels, progress: Progress, method: Method = "prepared"
) -> Candidate:
    """Quantise weights with the effort's methods for ranges; return the best one.

    One format chooses for all: the same weights and ranges have the same noise in each.
    """
    static, source = STATIC[target.format], models.by_method(method, target.format)
    floats, scheme = static.floats(source), models.options.scheme
    seen = observed(target, source, floats, models.images, progress)
    candidates, key = [], (models.options.grids(target.format), method)
    methods = models.methods.get(key) or _methods(target, models, progress, method)
    # Without answers' ranges that method is minmax.
    methods = tuple(each for each in methods if each != BY_ANSWERS or seen.answers) or ("minmax",)
    with progress.stage(f"choose ranges of {target}", len(methods)) as tick:
        for ranges in methods:
            content = static.quantise(floats, choose(ranges, seen), scheme=scheme)
            recipe = Recipe("int8", method, ranges)
            candidates.append(judged(target, models, content, recipe))
            tick()
    winner = closest_ranges(candidates, partial(confirmed, target, models))
    models.methods.setdefault(key, (winner.recipe.ranges,))
    structure.check(target.format, winner.content, source)
    return winner


def _methods(
    target: Target, models: CandidateModels, progress: Progress, method: Method
) -> tuple[str, ...]:
    """Return the method that the fastest format chooses; all, where a format has to choose."""
    fastest, options = replace(target, format=FASTEST), models.options
    if target == fastest or options.grids(FASTEST) != options.grids(target.format):
        return options.effort.range_methods
    try:
        return (ranged(fastest, models, progress, method).recipe.ranges,)
    except FAULTS:
        LOG.info("%s: no candidate", fastest, exc_info=True)
        return options.effort.range_methods


def all_distances(target: Target, models: CandidateModels, one: Candidate) -> NDArray[np.float64]:
    """Return a candidate's distances on the selection images and on CONFIRMING others."""
    return np.append(one.distances, confirmed(target, models, one))


def confirmed(target: Target, models: CandidateModels, one: Candidate) -> NDArray[np.float64]:
    """Return a candidate's distances on CONFIRMING images to which its weights may be fitted.

    It is run once: ranges, stock weights and finer steps are all compared by them.
    """
    mark = sha256(one.content).digest()
    if mark not in models.confirmed:
        models.confirmed[mark] = _confirmed(target, models, one)
    return models.confirmed[mark]


def _confirmed(target: Target, models: CandidateModels, one: Candidate) -> NDArray[np.float64]:
    images = models.images.preparation[:CONFIRMING]
    if not models.confirming:
        inputs = tensors(images, models.stock.input)
        models.confirming.append(answering.logits(models.stock, inputs))
    source = models.by_method(one.recipe.method, target.format)
    found = answers(target, source, one.content, models.images, images)
    kl = divergences(models.confirming[0], found, source.output)
    few, more = float(one.kl.mean()), float(kl.mean())
    LOG.info("%s, %s: KL %.5f, on more images %.5f", target, one.recipe.ranges, few, more)
    return roots(kl)


def judged(target: Target, models: CandidateModels, content: bytes, recipe: Recipe) -> Candidate:
    """Run an unsealed model on the selection images, of a slow precision on the first ones."""
    source = models.by_method(recipe.method, target.format)
    images = models.images.selection[: JUDGING.get(target.precision)]
    found = answers(target, source, content, models.images, images)
    return Candidate(recipe, content, found, divergences(models.logits, found, source.output))


def answers(
    target: Target, source: Source, content: bytes, images: ImageSplit, judging: Sequence[Path]
) -> Floats:
    """Return an unsealed model's logits on the images `judging`, [images, classes]."""
    path = Path(f"candidate.{target.format}")
    model = ModelContent(path, target.format, content)

    with quiet():
        engine = open_engine(model, EngineOptions(copies=True))
        contract = contract_builder.contract_of(source, target, engine, images)
        classifier = Classifier(Artefact(path, contract, b"", ""), engine)

        def run(image: Path) -> Floats:
            (tensor,) = tensors([image], contract.input)
            return classifier.numbers(engine.run(tensor))

        return spread(run, judging)
