"""Inference engines: one module each, twins with one verb `open_engine(path, threads)`.

Only an engine module imports its library, and only when it is opened.
"""

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.contract import Tensor
from kedge_runtime.errors import EngineError


class Engine(Protocol):
    """A loaded model: what it takes and gives, and one call to run it. Not thread-safe."""

    name: str
    input: Tensor
    input_shape: tuple[int, ...]
    output: Tensor
    output_shape: tuple[int, ...]

    def run(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Return the raw output, shape `output_shape`, for one input of `input_shape`."""


ENGINES = {"tflite": "kedge_runtime.engines.litert", "onnx": "kedge_runtime.engines.onnxruntime"}


def open_engine(form: str, path: Path, threads: int | None = None) -> Engine:
    """Load `path` with the engine of its format. Raises EngineError when that can't be done."""
    engine: Engine = import_module(ENGINES[form]).open_engine(path, threads)
    return engine


def dtype_name(dtype: Any) -> Any:
    """Return a numpy dtype's name, checked. Raises EngineError for what no contract can hold."""
    name = np.dtype(dtype).name
    if name not in ("float32", "float16", "int8", "uint8", "int16"):
        raise EngineError(f"the model has a tensor of {name}; kedge runs float and integer tensors")
    return name
