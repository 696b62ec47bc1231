"""float32 ONNX models on OpenCV's own network module: no library beyond what decodes the pictures.

OpenCV doesn't tell what a network takes and gives, and runs inputs of a wrong shape without a word:
both are read from the file. Quantised graphs load in some releases and fail in others: refused.
Batches of a network whose batch is fixed end the process in 4.8 and 4.11: never tried.
"""

from typing import Any

import cv2
import numpy as np

from kedge_runtime.arrays import Array
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.engines.base import Engine, float_port, image_port, only_ends
from kedge_runtime.engines.choice import ENGINES, EngineOptions, version_gate
from kedge_runtime.errors import EngineError, one_line
from kedge_runtime.modelfile.onnx import GraphOutline, read_outline

# What the names of integer operators have in common: QuantizeLinear, QLinearConv, MatMulInteger.
_INTEGER = ("Quantize", "QLinear", "Integer")


class OpenCV(Engine):
    """One network."""

    name = "opencv"
    library = "cv2"
    faults = (cv2.error,)
    batches = False

    def __init__(self, net: Any, graph: GraphOutline) -> None:
        """Take a network and what its file says of it."""
        taken, given = only_ends(graph.inputs, graph.outputs)
        entry = image_port(float_port(taken.shape, taken.dtype))
        super().__init__(entry, float_port(given.shape, given.dtype))
        self._net = net
        self._found: Array = np.empty(0, np.float32)

    def set(self, tensors: Array) -> None:
        """Copy the inputs into the network."""
        self._net.setInput(tensors)

    def invoke(self) -> None:
        """Run the network."""
        self._found = self._net.forward()

    def get(self) -> Array:
        """Return what the run gave, a new array each time."""
        return self._found


def open_engine(content: ModelContent, options: EngineOptions) -> OpenCV:
    """Load a float32 .onnx model, sealed or not. Raises EngineError.

    `threads`, when given, holds for all of OpenCV in this process: it has one pool.
    """
    (library,) = ENGINES["opencv"].libraries
    if gate := version_gate(library, cv2.__version__):
        raise EngineError(gate)
    try:
        graph = read_outline(content.data)
        _check_float32(graph)
        net = cv2.dnn.readNetFromONNX(np.frombuffer(content.data, np.uint8))
        if options.threads:
            cv2.setNumThreads(options.threads)
        return OpenCV(net, graph)
    except EngineError as error:
        raise EngineError(f"{content.path}: {error}") from None
    except (cv2.error, ValueError) as error:
        raise EngineError(f"{content.path}: OpenCV can't load it: {one_line(error)}") from None


def _check_float32(graph: GraphOutline) -> None:
    ends = {end.dtype for end in (*graph.inputs, *graph.outputs)}
    integer = sorted(op for op in graph.operators if any(part in op for part in _INTEGER))
    if found := integer or sorted(ends - {"float32"}):
        raise EngineError(
            f"opencv runs float32 models only, this one has {found[0]}; use onnxruntime"
        )
