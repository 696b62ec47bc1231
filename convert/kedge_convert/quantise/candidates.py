"""Several ways to an integer model; what measures better on pictures that none has seen is shipped.

Stock weights through the format's own quantiser, and prepared ones with each way to choose the
activations' ranges. They are compared by the divergence of their probabilities from the float
original's: it is finer than counting answers, and falls with them.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kedge_convert import sealing
from kedge_convert.export import structure
from kedge_convert.export.exported import PLAIN, Scheme, Way
from kedge_convert.export.formats import FORMATS
from kedge_convert.images import Photos, tensors, ticking
from kedge_convert.parity import divergence
from kedge_convert.prepare import preparation
from kedge_convert.prepare.graph import Graph
from kedge_convert.prepare.preparation import Grids
from kedge_convert.quantise.ranges import WAYS, Histogram, Observed, choose
from kedge_convert.quantise.static import STATIC
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_convert.toolkit import ConversionError
from kedge_convert.worker.progress import Progress
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.contract import Method
from kedge_runtime.artefact.file import Artefact
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.errors import EngineError
from kedge_runtime.output import quiet

# Methods other than min-max must win by so many standard errors of their difference: few pictures
# are held out, and the best of several noisy figures flatters itself.
MARGIN = 2.0
# What speaks against one candidate; as long as there is another one, it is passed over.
FAULTS = (ConversionError, EngineError)
LOG = logging.getLogger("kedge")


@dataclass(frozen=True)
class Making:
    """How candidates are made: repeatable by `seed`, laid out by `scheme`, in which `forms`."""

    seed: int = 0
    scheme: Scheme = PLAIN
    forms: tuple[str, ...] = tuple(STATIC)

    def grids(self, form: str) -> Grids:
        """Return where a format's prepared weights lie."""
        return STATIC[form].grids(self.scheme)


@dataclass(frozen=True)
class Sources:
    """The model as it is and, for integer targets, with prepared weights.

    `levelled`: what the `prepared` weights were rounded from. `known`: the float original's logits
    on the calibration pictures, [images, classes].
    """

    stock: Source
    prepared: dict[Grids, Source]
    levelled: Graph
    photos: Photos
    making: Making
    known: Floats

    def by_method(self, method: Method, form: str) -> Source:
        """Return the model that a format's candidates are made of."""
        return self.stock if method == "stock" else self.prepared[self.making.grids(form)]

    @property
    def logits(self) -> Floats:
        """The float original's on the held-out pictures, [images, classes]."""
        return self.known[-len(self.photos.held_out) :]


@dataclass(frozen=True)
class Candidate:
    """An exported, unsealed model.

    `answers`: its logits on the held-out pictures, [images, classes]; `kl`: their divergence from
    the float original's in nats, [images].
    """

    way: Way
    content: bytes
    answers: Floats
    kl: NDArray[np.float64]
    notes: tuple[str, ...] = ()


def sources(source: Source, photos: Photos, making: Making, progress: Progress) -> Sources:
    """Prepare the weights for the integer targets: once for all formats with the same grids."""
    graph = preparation.plan(source.model)
    pictures = fitting(source, photos)
    wanted = dict.fromkeys(map(making.grids, making.forms))
    prepared = {}
    with progress.stage("prepare weights", len(graph.nodes) * len(wanted)) as tick, quiet():
        levelled = preparation.levelled(graph, pictures)
        for grids in wanted:
            rounding = preparation.Rounding(making.seed, grids=grids)
            rounded = preparation.round_weights(levelled, pictures, rounding, tick)
            prepared[grids] = replace(source, model=rounded.build())
    known = source.logits(tensors(photos.calibration, source.input))
    return Sources(source, prepared, levelled, photos, making, known)


def fitting(source: Source, photos: Photos) -> Floats:
    """Return the pictures that weights are fitted to, float32 [n, h, w, 3]."""
    return np.concatenate(list(tensors(photos.fitting, source.input)))


def best(target: Target, found: Sources, progress: Progress) -> Candidate:
    """Return the candidate that is nearest to the float original."""
    own = ranged if target.precision == "int8" else partial(exported, method="prepared")
    made, errors = [], []
    for make in (partial(exported, method="stock"), own):
        try:
            made.append(make(target, found, progress))
        except FAULTS as error:
            LOG.info("%s: no candidate", target, exc_info=True)
            errors.append(error)
    if not made:
        raise errors[0]
    return min(made, key=lambda candidate: float(candidate.kl.mean()))


def exported(target: Target, found: Sources, progress: Progress, method: Method) -> Candidate:
    """Export by the format's own quantiser."""
    source, calibration = found.by_method(method, target.form), found.photos.calibration
    export, scheme = FORMATS[target.form].export, found.making.scheme
    with progress.stage(f"export {target}, {method}", len(calibration)) as tick:
        made = export(source, target.precision, calibration, tick, scheme)
    candidate = judged(target, found, made.content, Way(target.precision, method, "minmax"))
    return replace(candidate, notes=made.notes)


def ranged(target: Target, found: Sources, progress: Progress) -> Candidate:
    """Quantise the prepared weights with every way to choose ranges and return the best."""
    static, source = STATIC[target.form], found.by_method("prepared", target.form)
    floats, scheme = static.floats(source), found.making.scheme
    seen = observed(target, source, floats, found.photos, progress)
    tried = []
    with progress.stage(f"choose ranges of {target}", len(WAYS)) as tick:
        for name in WAYS:
            content = static.quantise(floats, choose(name, seen), scheme=scheme)
            tried.append(judged(target, found, content, Way("int8", "prepared", name)))
            tick()
    winner = nearest(tried)
    structure.check(target.form, winner.content, source)
    return winner


def observed(
    target: Target, source: Source, floats: bytes, photos: Photos, progress: Progress
) -> Observed:
    """Return the histograms of every activation of a float file over the calibration pictures."""
    with progress.stage(f"observe {target}", len(photos.calibration)) as tick:
        return Observed(
            *(
                _histograms(target.form, floats, ticking(tensors(paths, source.input), tick))
                for paths in (photos.fitting, photos.held_out)
            )
        )


def _histograms(form: str, floats: bytes, pictures: Iterator[Floats]) -> dict[str, Histogram]:
    histograms: dict[str, Histogram] = defaultdict(Histogram)
    STATIC[form].observe(floats, pictures, lambda name, x: histograms[name].add(x))
    return histograms


def nearest(candidates: Iterable[Candidate]) -> Candidate:
    """Return the candidate nearest to the original; the first stays unless beaten by MARGIN."""
    first, *others = candidates
    winners = (one for one in others if _beats(one, first))
    return min((first, *winners), key=lambda one: float(one.kl.mean()))


def _beats(one: Candidate, other: Candidate) -> bool:
    gain = other.kl - one.kl
    return bool(gain.mean() > MARGIN * gain.std() / np.sqrt(len(gain)))


def judged(target: Target, found: Sources, content: bytes, way: Way) -> Candidate:
    """Run an unsealed model on the held-out pictures."""
    source = found.by_method(way.method, target.form)
    answers = _answers(target, source, content, found.photos)
    pairs = zip(found.logits, answers, strict=True)
    kl = np.array([divergence(one[None], other[None], source.output) for one, other in pairs])
    return Candidate(way, content, answers, kl)


def _answers(target: Target, source: Source, content: bytes, photos: Photos) -> Floats:
    path = Path(f"candidate.{target.form}")
    with quiet():
        engine = open_engine(ModelContent(path, target.form, content))
        contract = sealing.contract_of(source, target, engine, photos)
        classifier = Classifier(Artefact(path, contract, Golden.none(), ""), engine)
        return np.stack([classifier.outputs(photo) for photo in photos.held_out])
