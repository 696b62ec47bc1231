"""TFLite models on LiteRT: `ai_edge_litert`, or `tflite_runtime` where the former has no wheel."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.contract import Quantisation, Tensor
from kedge_runtime.engines import dtype_name
from kedge_runtime.errors import EngineError


class LiteRT:
    """One interpreter with its tensors allocated once."""

    def __init__(self, interpreter: Any, name: str) -> None:
        """Take an interpreter whose tensors are allocated."""
        self.name = name
        self._interpreter = interpreter
        (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
        self._input_index, self._output_index = taken["index"], given["index"]
        self.input, self.output = _tensor(taken), _tensor(given)
        self.input_shape = tuple(map(int, taken["shape"]))
        self.output_shape = tuple(map(int, given["shape"]))

    def run(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Return the raw output for one input, in the engine's dtype."""
        self._interpreter.set_tensor(self._input_index, tensor)
        self._interpreter.invoke()
        output: NDArray[Any] = self._interpreter.get_tensor(self._output_index)
        return output


def open_engine(path: Path, threads: int | None = None) -> LiteRT:
    """Load a .tflite file on `threads` threads (default: all cores). Raises EngineError."""
    interpreter_class, name = _library()
    try:
        interpreter = interpreter_class(str(path), num_threads=threads or os.cpu_count())
        interpreter.allocate_tensors()
        return LiteRT(interpreter, name)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise EngineError(f"{path}: LiteRT can't load it: {reason}") from None


def _library() -> tuple[Any, str]:
    try:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter, "litert"
    except ImportError:
        pass
    try:
        from tflite_runtime.interpreter import Interpreter
    except ImportError:
        raise EngineError("no LiteRT here: pip install ai-edge-litert") from None
    if int(np.__version__.split(".")[0]) >= 2:
        raise EngineError(
            f"tflite-runtime fails with numpy {np.__version__}: pip install 'numpy<2'"
        )
    return Interpreter, "tflite_runtime"


def _tensor(details: dict[str, Any]) -> Tensor:
    dtype = dtype_name(details["dtype"])
    if "int" not in dtype:
        return Tensor(dtype)
    scale, zero_point = details["quantization"]
    return Tensor(dtype, Quantisation(float(scale), int(zero_point)))
