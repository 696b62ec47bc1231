"""Run a shipped file and return every tensor that depends on the image.

Reference kernels run a .tflite file: only they return the same integers on every machine.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert.toolkit import require
from kedge_runtime.arrays import Array, Floats
from kedge_runtime.artefact.content import format_of
from kedge_runtime.engines.onnxruntime import precise_session
from kedge_runtime.errors import EngineError, one_line
from kedge_runtime.output import quiet

# Operators whose second input is a kernel.
KERNELS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "Conv", "Gemm", "MatMul"})


@dataclass(frozen=True)
class ShippedStage:
    """Describe one tensor of the file: its integers mean step * (integer - zero).

    `step`: 0 for floats; `kernel_scales`: the number of scales of its operator's kernel, 0 for a
    float one or none; `operator`: the name of its operator, where the format has such names.
    """

    name: str
    step: float = 0.0
    zero: int = 0
    lowest: int = 0
    highest: int = 0
    kernel_scales: int = 0
    operator: str = ""

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value that it can hold."""
        if not self.step:
            return -np.inf, np.inf
        return self.step * (self.lowest - self.zero), self.step * (self.highest - self.zero)

    def real(self, values: Array) -> Floats:
        """Return the values as float32."""
        if not self.step:
            return np.asarray(values, np.float32)
        steps = values.astype(np.float32) - np.float32(self.zero)
        return np.asarray(steps * np.float32(self.step), np.float32)


@dataclass(frozen=True)
class TensorSample:
    """Hold the tensors of a few images.

    `images`: the float model's input, float32 [n, h, w, 3]; `file_input`: the same in the
    file's steps; `stages`: the file's tensors, float32 [n, ...], by the stage's index.
    """

    images: Floats
    file_input: Floats
    stages: dict[int, Floats]


class Shipped(ABC):
    """Run an opened file: `entry` is its input, `stages` its tensors in order, the output last."""

    entry: ShippedStage
    stages: tuple[ShippedStage, ...]

    @abstractmethod
    def run(self, tensor: Array) -> list[Array]:
        """Return the stages' raw values for one input, [1, ...] each."""


class _TFLite(Shipped):
    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        details = {each["index"]: each for each in interpreter.get_tensor_details()}
        (entry,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
        self._input, self.entry = entry["index"], _tflite_stage(entry, 0)
        self._indices: list[int] = []
        stages: list[ShippedStage] = []
        for operator in _active(interpreter._get_ops_details(), entry["index"]):
            for index in operator["outputs"]:
                if _is_real(details[index]):
                    self._indices.append(int(index))
                    stages.append(_tflite_stage(details[index], _kernel_scales(operator, details)))
        last = self._indices.index(output["index"])
        self._indices.append(self._indices.pop(last))
        stages.append(stages.pop(last))
        self.stages = tuple(stages)

    def run(self, tensor: Array) -> list[Array]:
        self._interpreter.set_tensor(self._input, tensor)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._indices]


def _open_tflite(path: Path) -> Shipped:
    litert = require("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(
        str(path),
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    return _TFLite(interpreter)


def _active(operators: Sequence[Any], entry: int) -> list[Any]:
    """Return the operators that depend on the input; others unpack weights."""
    tensors, active = {entry}, []
    for operator in operators:
        if tensors.intersection(map(int, operator["inputs"])):
            tensors.update(map(int, operator["outputs"]))
            active.append(operator)
    return active


def _is_real(details: Any) -> bool:
    """Whether a tensor holds real numbers; integers without a scale are shapes and indices."""
    return bool(np.dtype(details["dtype"]).kind == "f" or details["quantization"][0])


def _tflite_stage(details: Any, kernel_scales: int) -> ShippedStage:
    step, zero = details["quantization"]
    return _stage(details["name"], (step, zero, details["dtype"]), kernel_scales)


def _kernel_scales(operator: Any, details: dict[int, Any]) -> int:
    if operator["op_name"] not in KERNELS:
        return 0
    kernel = details[int(operator["inputs"][1])]
    return int(kernel["quantization_parameters"]["scales"].size)


def _stage(name: str, grid: tuple[float, int, Any], kernel_scales: int) -> ShippedStage:
    step, zero, dtype = grid
    if np.dtype(dtype).kind == "f":
        return ShippedStage(name, kernel_scales=kernel_scales)
    limits = np.iinfo(dtype)
    return ShippedStage(
        name, float(step), int(zero), int(limits.min), int(limits.max), kernel_scales
    )


class _Onnx(Shipped):
    def __init__(self, session: Any, names: list[str], stages: list[ShippedStage]) -> None:
        self.entry = ShippedStage(session.get_inputs()[0].name)
        self._session, self._names, self.stages = session, names, tuple(stages)

    def run(self, tensor: Array) -> list[Array]:
        values: list[Array] = self._session.run(self._names, {self.entry.name: tensor})
        return values


def _open_onnx(path: Path) -> Shipped:
    onnx, onnxruntime = require("onnx"), require("onnxruntime")
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    stages = _OnnxTensors(onnx, model.graph).stages()
    outputs = {each.name for each in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in stages if name not in outputs
    )
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    content = model.SerializeToString()
    session, _ = precise_session(content, settings)
    return _Onnx(session, list(stages), list(stages.values()))


class _OnnxTensors:
    """Choose the tensors of an ONNX graph to read: the integers where there are some."""

    def __init__(self, onnx: Any, graph: Any) -> None:
        self._graph = graph
        self._constants = {
            each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer
        }
        self._origin = {name: node for node in graph.node for name in node.output}
        self._quantiser = {
            node.input[0]: node for node in graph.node if node.op_type == "QuantizeLinear"
        }
        floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
        self._real = {
            value.name
            for value in (*graph.value_info, *graph.output)
            if value.type.tensor_type.elem_type in floats
        }

    def stages(self) -> dict[str, ShippedStage]:
        """Return name -> stage in the graph's order."""
        active = {self._graph.input[0].name}
        stages: dict[str, ShippedStage] = {}
        for node in self._graph.node:
            if not active.intersection(node.input):
                continue
            active.update(node.output)
            if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
                stages.update(self._entry(node, name) for name in node.output if name in self._real)
        return stages

    def _entry(self, node: Any, name: str) -> tuple[str, ShippedStage]:
        scales = self._kernel_scales(node)
        quantiser = self._quantiser.get(name)
        if quantiser is None:
            return name, ShippedStage(name, kernel_scales=scales, operator=node.name)
        step, zero = (self._constants[each] for each in quantiser.input[1:])
        grid = (float(step.item()), int(zero.item()), zero.dtype)
        return quantiser.output[0], replace(_stage(name, grid, scales), operator=node.name)

    def _kernel_scales(self, node: Any) -> int:
        origin = self._origin.get(node.input[1]) if node.op_type in KERNELS else None
        if origin is None or origin.op_type != "DequantizeLinear":
            return 0
        constant = origin.input[0] in self._constants
        return int(self._constants[origin.input[1]].size) if constant else 0


FORMATS: dict[str, Callable[[Path], Shipped]] = {"tflite": _open_tflite, "onnx": _open_onnx}


def open_shipped(path: Path) -> Shipped:
    """Open a sealed or unsealed file. Raises EngineError when the format's library refuses it."""
    try:
        with quiet():
            return FORMATS[format_of(path)](path)
    # onnxruntime's errors have no base of their own.
    except Exception as error:
        raise EngineError(f"{path}: its layers can't be read: {one_line(error)}") from error
