"""Recognise a network by its bytes and its input, whatever is calibrated or signed later."""

import hashlib
import json

from kedge_runtime.artefact import containers
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.records import encode


def identity(content: ModelContent, contract: Contract) -> str:
    """Return the SHA-256 of a model's bytes without its seal, and of its preprocessing.

    A sealed file's own digest changes with its signature.
    """
    bare, _ = containers.split(content.format, content.data)
    spec = json.dumps(encode(contract.input), sort_keys=True).encode()
    return f"sha256:{hashlib.sha256(hashlib.sha256(bare).digest() + spec).hexdigest()}"
