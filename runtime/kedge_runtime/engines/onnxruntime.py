"""ONNX models on onnxruntime's CPU provider."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.contract import Layout, Tensor
from kedge_runtime.engines import dtype_name
from kedge_runtime.errors import EngineError

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}


class OnnxRuntime:
    """One session. Quantised ONNX models keep float inputs and outputs."""

    name = "onnxruntime"

    def __init__(self, session: Any) -> None:
        """Take a session with one input and one output."""
        (taken,), (given,) = session.get_inputs(), session.get_outputs()
        self._session, self._input, self._outputs = session, taken.name, [given.name]
        self.input, self.output = _tensor(taken), _tensor(given)
        self.input_shape, self.output_shape = _shape(taken), _shape(given)

    def run(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Return the raw output for one input, in the engine's dtype."""
        output: NDArray[Any] = self._session.run(self._outputs, {self._input: tensor})[0]
        return output


def open_engine(path: Path, threads: int | None = None) -> OnnxRuntime:
    """Load an .onnx file on `threads` threads (default: all cores). Raises EngineError."""
    try:
        import onnxruntime
    except ImportError:
        raise EngineError("no onnxruntime here: pip install 'kedge[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        return OnnxRuntime(session)
    # onnxruntime's errors have no base of their own: InvalidGraph is a plain Exception.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise EngineError(f"{path}: onnxruntime can't load it: {reason}") from None


def _shape(value: Any) -> tuple[int, ...]:
    # A symbolic batch is run with one picture at a time.
    return tuple(size if isinstance(size, int) else 1 for size in value.shape)


def _tensor(value: Any) -> Tensor:
    layout: Layout = "nchw" if len(value.shape) == 4 and value.shape[1] == 3 else "nhwc"
    return Tensor(dtype_name(np.dtype(_DTYPES.get(value.type, "object"))), layout=layout)
