"""Run sealed image classifiers on a device, with numpy, OpenCV and an inference engine.

from kedge_runtime import Classifier

classifier = Classifier.open("mobilenet.int8.tflite")
print(classifier("kitchen.jpg").best.name)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kedge_runtime.artefact.contract import Contract as Contract
    from kedge_runtime.artefact.foreign import read_contract as read_contract
    from kedge_runtime.classify.classifier import Classifier as Classifier
    from kedge_runtime.classify.ensemble import Ensemble as Ensemble
    from kedge_runtime.classify.results import Prediction as Prediction
    from kedge_runtime.classify.results import Result as Result
    from kedge_runtime.classify.results import Rule as Rule
    from kedge_runtime.classify.second_opinion import SecondOpinion as SecondOpinion
    from kedge_runtime.errors import ArtefactError as ArtefactError
    from kedge_runtime.errors import ContractError as ContractError
    from kedge_runtime.errors import EngineError as EngineError
    from kedge_runtime.errors import ImageError as ImageError
    from kedge_runtime.errors import KedgeError as KedgeError
    from kedge_runtime.errors import UsageError as UsageError
    from kedge_runtime.image.preprocessing import preprocess as preprocess

__version__ = "0.1.0"

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
    "SecondOpinion": "classify.second_opinion",
    "UsageError": "errors",
    "preprocess": "image.preprocessing",
    "read_contract": "artefact.foreign",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `kedge --help` needs neither numpy nor OpenCV."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
