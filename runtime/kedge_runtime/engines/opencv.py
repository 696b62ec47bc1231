"""Run float32 ONNX models on OpenCV's own network module: no library beyond the image decoder.

OpenCV does not report a network's inputs and outputs, and accepts inputs of a wrong shape. So both
are read from the file. Quantised graphs load in some releases only: they are refused. Batches of a
network with a fixed batch end the process in 4.8 and 4.11: they are never tried.
"""

import struct
from typing import Any

import numpy as np

from kedge_runtime.arrays import Array
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.engines.base import Engine, Port, float_port, image_port, single_ports
from kedge_runtime.engines.choice import ENGINES, EngineOptions, version_gate
from kedge_runtime.errors import EngineError, about, one_line
from kedge_runtime.image.opencv import cv2
from kedge_runtime.modelfile import onnx
from kedge_runtime.modelfile.network import Network, Value
from kedge_runtime.modelfile.unreadable import unreadable

# Parts of the names of integer operators: QuantizeLinear, QLinearConv, MatMulInteger.
_INTEGER = ("Quantize", "QLinear", "Integer")


class OpenCV(Engine):
    """One network."""

    name = "opencv"
    library = "cv2"
    faults = (cv2.error,)
    batches = False

    def __init__(self, net: Any, network: Network) -> None:
        """Take OpenCV's network, and the same as read from its file."""
        inputs, outputs = (
            [_port(network.values[i]) for i in side] for side in (network.inputs, network.outputs)
        )
        input_port, output_port = single_ports(inputs, outputs)
        super().__init__(image_port(input_port), output_port)
        self._net = net
        self._result: Array = np.empty(0, np.float32)

    def set(self, tensors: Array) -> None:
        """Copy the inputs into the network."""
        self._net.setInput(tensors)

    def invoke(self) -> None:
        """Run the network."""
        self._result = self._net.forward()

    def get(self) -> Array:
        """Return the raw output, a new array each time."""
        return self._result

    def release(self) -> None:
        """Drop the network."""
        self._net = None


def open_engine(content: ModelContent, options: EngineOptions) -> OpenCV:
    """Load a float32 .onnx model, sealed or not. Raises EngineError.

    `threads`, when given, holds for all of OpenCV in this process: it has one pool.
    """
    (library,) = ENGINES["opencv"].libraries
    if gate := version_gate(library, cv2.__version__):
        raise EngineError(gate)
    with about(content.path):
        network = _read(content)
        _check_float32(network)
        try:
            net = cv2.dnn.readNetFromONNX(np.frombuffer(content.data, np.uint8))
        except cv2.error as error:
            raise EngineError(f"OpenCV can't load it: {one_line(error)}") from None
        if options.threads:
            cv2.setNumThreads(options.threads)
        return OpenCV(net, network)


def _read(content: ModelContent) -> Network:
    try:
        return onnx.read(memoryview(content.data))
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise EngineError(unreadable("onnx", content.data, error)) from None


def _port(value: Value) -> Port:
    # OpenCV runs one image: an open side is 1.
    sides = [1 if side < 0 else side for side in value.shape or ()]
    return float_port(sides, value.dtype)


def _check_float32(network: Network) -> None:
    dtypes = {network.values[i].dtype for i in (*network.inputs, *network.outputs)}
    kinds = {operator.kind for operator in network.operators}
    integer = sorted(kind for kind in kinds if any(part in kind for part in _INTEGER))
    if unsupported := integer or sorted(dtypes - {"float32"}):
        raise EngineError(
            f"opencv runs float32 models only, this one has {unsupported[0]}; use onnxruntime"
        )
