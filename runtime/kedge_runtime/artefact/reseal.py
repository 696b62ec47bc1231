"""Give a sealed file another contract: the model's bytes and the golden set's images stay."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kedge_runtime.artefact import containers
from kedge_runtime.artefact.content import DIGEST_BYTES, ModelContent, SealedParts
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import CONTRACT, GOLDEN, SKETCH, artefact_of, members_of
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.signing import signature_of
from kedge_runtime.checks.verify import answer
from kedge_runtime.classify.results import Classes
from kedge_runtime.files import write_whole

if TYPE_CHECKING:
    from kedge_runtime.field.sketch import Sketch


def is_signed(content: ModelContent) -> bool:
    """Return whether a file has a signature, valid or not; a new contract removes it."""
    return signature_of(content.data) is not None


def resealed(
    content: ModelContent, contract: Contract, sketch: "Sketch | None" = None
) -> SealedParts:
    """Return a sealed file with another contract or sketch, and a new digest, to be written.

    The golden set's probabilities are those of the new contract, of the recorded outputs: no engine
    is opened, and the model is not copied. A signature is removed, and at another temperature the
    sketch, whose confidence has changed. Raises ArtefactError for a damaged file.
    """
    artefact = artefact_of(content)
    bare, others = containers.split(content.format, content.data)
    members = containers.FORMATS[content.format].read(content)
    made = {CONTRACT, GOLDEN, "kedge/digest"}
    if sketch is not None or contract.output.temperature != artefact.contract.output.temperature:
        made.add(SKETCH)
    kept = {
        name: member
        for name, member in members.items()
        if name.startswith("kedge/") and name not in made
    }
    golden = _golden(artefact.golden, contract)
    sealed = members_of(content.format, contract, golden, {**others, **kept}, sketch)
    return containers.parts(content.format, bare, sealed)


def _golden(golden: Golden, contract: Contract) -> Golden:
    classes, output = Classes.of_contract(contract), contract.output
    confidence = [answer(classes, output, outputs)[1] for outputs in golden.recorded]
    return replace(golden, confidence=np.array(confidence, np.float32))


def write_resealed(path: Path, parts: SealedParts) -> str:
    """Write a resealed file whole or not at all; return its digest."""
    write_whole(path, *parts)
    return parts[-1][-DIGEST_BYTES:].decode()
