"""Two ways to an integer model, prepared weights and stock ones; what measures better is shipped.

They are compared on pictures that neither has seen, by the divergence of their probabilities from
the float original's: it is finer than counting answers, and falls with them.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kedge_convert import prepare, sealing
from kedge_convert.formats import FORMATS
from kedge_convert.metrics import divergence
from kedge_convert.photos import Photos, tensors
from kedge_convert.progress import Progress
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_convert.toolkit import quiet
from kedge_runtime.artefact import Artefact
from kedge_runtime.classifier import Classifier
from kedge_runtime.contract import Method
from kedge_runtime.engines import open_engine
from kedge_runtime.golden import Golden
from kedge_runtime.head import Floats


@dataclass(frozen=True)
class Sources:
    """The model as it is and, for integer targets, with prepared weights.

    `logits`: the float original's on the held-out pictures, [images, classes].
    """

    by_method: dict[Method, Source]
    logits: Floats


@dataclass(frozen=True)
class Candidate:
    """An exported, unsealed model. `kl`: its divergence in nats on the held-out pictures."""

    method: Method
    content: bytes
    kl: float


def sources(source: Source, photos: Photos, seed: int, progress: Progress) -> Sources:
    """Prepare the weights for the integer targets."""
    graph = prepare.plan(source.model)
    pictures = np.concatenate(list(tensors(photos.fitting, source.input)))
    with progress.stage("prepare weights", len(graph.nodes)) as tick, quiet():
        model = prepare.prepare(graph, pictures, seed, tick)
    logits = source.logits(tensors(photos.held_out, source.input))
    return Sources({"prepared": replace(source, model=model), "stock": source}, logits)


def best(target: Target, found: Sources, photos: Photos, progress: Progress) -> Candidate:
    """Export both ways and return the one that is nearer to the float original."""
    candidates = []
    for method, source in found.by_method.items():
        with progress.stage(f"export {target}, {method}", len(photos.calibration)) as tick:
            form = FORMATS[target.form]
            content = form.export(source, target.precision, photos.calibration, tick)
        kl = divergence(found.logits, _answers(target, source, content, photos), source.activation)
        candidates.append(Candidate(method, content, kl))
    return min(candidates, key=lambda candidate: candidate.kl)


def _answers(target: Target, source: Source, content: bytes, photos: Photos) -> Floats:
    """Return an unsealed model's logits on the held-out pictures."""
    with tempfile.TemporaryDirectory(prefix="kedge-") as folder, quiet():
        path = Path(folder) / f"candidate.{target.form}"
        path.write_bytes(content)
        engine = open_engine(target.form, path)
        contract = sealing.contract_of(source, target, engine, photos)
        classifier = Classifier(Artefact(path, contract, Golden.none(), ""), engine)
        return np.stack([classifier.outputs(photo) for photo in photos.held_out])
