"""Run sealed image classifiers on a device, with numpy, OpenCV and an inference engine.

from kedge_runtime import Classifier

classifier = Classifier.open("mobilenet.int8.tflite")
print(classifier("kitchen.jpg").best.name)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kedge_runtime.artefact.contract import Contract
    from kedge_runtime.artefact.foreign import read_contract
    from kedge_runtime.classify.classifier import Classifier
    from kedge_runtime.classify.ensemble import Ensemble
    from kedge_runtime.classify.results import Prediction, Result, Rule
    from kedge_runtime.errors import (
        ArtefactError,
        ContractError,
        EngineError,
        ImageError,
        KedgeError,
        UsageError,
    )
    from kedge_runtime.image.preprocessing import preprocess

__version__ = "0.1.0"

__all__ = [
    "ArtefactError",
    "Classifier",
    "Contract",
    "ContractError",
    "EngineError",
    "Ensemble",
    "ImageError",
    "KedgeError",
    "Prediction",
    "Result",
    "Rule",
    "UsageError",
    "preprocess",
    "read_contract",
]

_HOMES = {
    "ArtefactError": "errors",
    "Classifier": "classify.classifier",
    "Contract": "artefact.contract",
    "ContractError": "errors",
    "EngineError": "errors",
    "Ensemble": "classify.ensemble",
    "ImageError": "errors",
    "KedgeError": "errors",
    "Prediction": "classify.results",
    "Result": "classify.results",
    "Rule": "classify.results",
    "UsageError": "errors",
    "preprocess": "image.preprocessing",
    "read_contract": "artefact.foreign",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `kedge --help` needs neither numpy nor OpenCV."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
