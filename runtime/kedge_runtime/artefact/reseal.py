"""Give a sealed file another contract: the model's bytes and the golden set's images stay."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from kedge_runtime.artefact import containers
from kedge_runtime.artefact.content import DIGEST_BYTES, ModelContent
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import CONTRACT, GOLDEN, SKETCH, artefact_of, seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.signing import signature_of
from kedge_runtime.checks.verify import answer
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.files import write_whole


def is_signed(content: ModelContent) -> bool:
    """Return whether a file has a signature, valid or not; a new contract removes it."""
    return signature_of(content.data) is not None


def resealed(content: ModelContent, classifier: Classifier, contract: Contract) -> bytes:
    """Return the bytes of a sealed file with another contract, and a new digest.

    `classifier`: of this file; the engine computes nothing. The golden set's probabilities are
    those of the new contract. A signature is removed, and at another temperature the sketch, whose
    confidence has changed. Raises ArtefactError for a damaged file.
    """
    golden = artefact_of(content).golden
    bare, others = containers.split(content.format, content.data)
    members = containers.FORMATS[content.format].read(content)
    made = {CONTRACT, GOLDEN, "kedge/digest"}
    if contract.output.temperature != classifier.contract.output.temperature:
        made.add(SKETCH)
    kept = {
        name: member
        for name, member in members.items()
        if name.startswith("kedge/") and name not in made
    }
    changed = Classifier(replace(classifier.artefact, contract=contract), classifier.engine)
    return seal(content.format, bare, contract, _golden(golden, changed), {**others, **kept})


def _golden(golden: Golden, classifier: Classifier) -> Golden:
    confidence = [answer(classifier, outputs)[1] for outputs in golden.recorded]
    return replace(golden, confidence=np.array(confidence, np.float32))


def write_resealed(path: Path, data: bytes) -> str:
    """Write a resealed file whole or not at all; return its digest."""
    write_whole(path, data)
    return data[-DIGEST_BYTES:].decode()
