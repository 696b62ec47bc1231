"""kedge on the device: run a sealed image classifier with numpy, OpenCV and an engine.

from kedge_runtime import Classifier

classifier = Classifier.open("mobilenet.int8.tflite")
print(classifier("kitchen.jpg").best.name)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kedge_runtime.classifier import Classifier, Result
    from kedge_runtime.contract import Contract
    from kedge_runtime.errors import ArtefactError, EngineError, ImageError, KedgeError
    from kedge_runtime.head import Prediction
    from kedge_runtime.preprocess import preprocess

__version__ = "0.1.0"

__all__ = [
    "ArtefactError",
    "Classifier",
    "Contract",
    "EngineError",
    "ImageError",
    "KedgeError",
    "Prediction",
    "Result",
    "preprocess",
]

_HOMES = {
    "ArtefactError": "errors",
    "Classifier": "classifier",
    "Contract": "contract",
    "EngineError": "errors",
    "ImageError": "errors",
    "KedgeError": "errors",
    "Prediction": "head",
    "Result": "classifier",
    "preprocess": "preprocess",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: `kedge --help` needs neither numpy nor OpenCV."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
