"""Define the base of all engines: a checked input, one run at a time, batches or else a loop.

An engine's module adds a class with the steps of a run, `set`, `invoke` and `get`, and the function
`open_engine(content, options)`.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import Any, get_args

import numpy as np

from kedge_runtime.arrays import Array
from kedge_runtime.artefact.contract import Quantisation, Tensor
from kedge_runtime.artefact.kinds import DType, Layout
from kedge_runtime.engines.choice import ENGINES, how_to_install, is_installed, numpy_gate
from kedge_runtime.errors import EngineError, counted, one_line
from kedge_runtime.frozen import dataclass


@dataclass(frozen=True)
class Port:
    """An input or output of a model.

    `shape`: a symbolic batch counts as 1. `fixed`: whether the file states every other side.
    """

    shape: tuple[int, ...]
    tensor: Tensor
    fixed: bool = True


class Engine(ABC):
    """A loaded model with one input and one output. Safe to share between threads.

    A lock makes threads wait for each other: an interpreter has one set of tensors. No later run
    writes into a returned array.
    """

    name: str
    """Its key in ENGINES."""
    library: str
    """The Python module that runs the model."""
    faults: tuple[type[Exception], ...]
    """The exceptions of the library when a run fails."""
    batches = True
    """Whether batches may be tried; False after the first refusal."""
    note = ""
    """A line for the user on how the model was opened, or empty."""
    threads = 0
    """The threads that it was opened with; 0 where that is not known."""
    closed = False
    """Whether its memory is released."""

    def __init__(self, input_port: Port, output_port: Port) -> None:
        """Take the input and the output of the loaded model."""
        self.ports = input_port, output_port
        self.input, self.input_shape = input_port.tensor, input_port.shape
        self.output, self.output_shape = output_port.tensor, output_port.shape
        self._dtype = np.dtype(input_port.tensor.dtype)
        self._lock = threading.Lock()

    # The steps of one run, without its lock and its check: `kedge bench` clocks them one by one.
    @abstractmethod
    def set(self, tensors: Array) -> None:
        """Set [n, ...] inputs, any n; raise one of `faults` if refused."""

    @abstractmethod
    def invoke(self) -> None:
        """Run the network; raise one of `faults` when that fails."""

    @abstractmethod
    def get(self) -> Array:
        """Return the raw output; no later run writes into it."""

    @abstractmethod
    def release(self) -> None:
        """Drop the library's object; nothing runs after it."""

    def close(self) -> None:
        """Release the model's memory, after a run of another thread has ended."""
        with self._lock:
            if not self.closed:
                self.closed = True
                self.release()

    def _run(self, tensors: Array) -> Array:
        if self.closed:
            raise EngineError("the model is closed; open it again")
        self.set(tensors)
        self.invoke()
        return self.get()

    def run(self, tensor: Array) -> Array:
        """Return the raw output, shape `output_shape`, for one input of `input_shape`.

        Raises EngineError for another shape or dtype, and when the library fails.
        """
        self._check(tensor, self.input_shape)
        try:
            with self._lock:
                output = self._run(tensor)
        except self.faults as error:
            raise self._failed(error) from None
        self._check_output(output)
        return output

    def _check_output(self, output: Array) -> None:
        shape = self.output_shape if self.ports[1].fixed else output.shape
        if output.shape != shape or output.dtype != self.output.dtype:
            raise EngineError(
                f"{self.name} gave a tensor of {output.dtype} {output.shape}, "
                f"the model states {self.output.dtype} {self.output_shape}: convert it again"
            )

    def run_many(self, tensors: Array) -> Array:
        """Return [n, ...] raw outputs for [n, ...] inputs, in a batch if possible, else in a loop.

        A batch takes n times the memory of one input. Raises EngineError as `run` does.
        """
        self._check(tensors, (len(tensors), *self.input_shape[1:]))
        try:
            with self._lock:
                return self._batch(tensors)
        except self.faults as error:
            raise self._failed(error) from None

    def warm_up(self) -> None:
        """Run once on zeros: the first run of a model packs weights and starts threads."""
        self.run(np.zeros(self.input_shape, self._dtype))

    def _batch(self, tensors: Array) -> Array:
        expected = (len(tensors), *self._row)
        if self.batches and len(tensors) > 1:
            try:
                whole = self._run(tensors)
            except self.faults:
                self.batches = False
            else:
                # A model with a fixed batch of 1 inside returns one row only.
                self.batches = whole.shape == expected
                if self.batches:
                    return whole
        outputs = np.empty(expected, self.output.dtype)
        for i in range(len(tensors)):
            outputs[i] = self._run(tensors[i : i + 1]).reshape(self._row)
        return outputs

    @property
    def _row(self) -> tuple[int, ...]:
        shape = self.output_shape
        return shape[1:] if shape[:1] == (1,) else shape

    def _check(self, tensor: Array, shape: tuple[int, ...]) -> None:
        if tensor.shape != shape or tensor.dtype != self._dtype:
            raise EngineError(
                f"got a tensor of {tensor.dtype} {tensor.shape}, "
                f"the model takes {self._dtype} {shape}"
            )

    def _failed(self, error: Exception) -> EngineError:
        return EngineError(f"{self.name} failed to run the model: {one_line(error)}")


def import_library(engine: str) -> ModuleType:
    """Return the first installed library of an engine that can be imported.

    Raises EngineError where all are missing, broken, or incompatible with this numpy.
    """
    reasons = []
    for library in ENGINES[engine].libraries:
        if not is_installed(library):
            continue
        if reason := numpy_gate(library, np.__version__):
            reasons.append(reason)
            continue
        try:
            return import_module(library.module)
        except (ImportError, OSError) as error:
            reasons.append(f"{library.package} can't be imported: {one_line(error)}")
    raise EngineError(
        reasons[0] if reasons else f"{engine} is not installed: {how_to_install(engine)}"
    )


def single_ports(inputs: Sequence[Any], outputs: Sequence[Any]) -> tuple[Any, Any]:
    """Return the one input and the one output. Raises EngineError for another number of them."""
    if len(inputs) != 1 or len(outputs) != 1:
        raise EngineError(
            f"the model has {counted(len(inputs), 'input')} and {counted(len(outputs), 'output')}; "
            "kedge runs one of each"
        )
    return inputs[0], outputs[0]


# A uint8 input without a scale: an image's bytes, which the model casts itself.
BYTES = Tensor("uint8", Quantisation(1.0, 0))


def image_port(port: Port) -> Port:
    """Return a model's input with the layout that its shape implies."""
    return replace(port, tensor=replace(port.tensor, layout=_layout(port.shape)))


def _layout(shape: tuple[int, ...]) -> Layout:
    if len(shape) != 4:
        return {2: "flat", 3: "nhw"}.get(len(shape), "nhwc")  # type: ignore[return-value]
    channels, last = shape[1], shape[3]
    planar = channels == 3 != last or (channels == 1 and last not in (1, 3))
    return "nchw" if planar else "nhwc"


def float_port(shape: Sequence[Any], dtype: str) -> Port:
    """Return a port of an ONNX model: symbolic sizes are 1, [n, 3, ...] is planar."""
    layout: Layout = "nchw" if len(shape) == 4 and shape[1] == 3 else "nhwc"
    sizes = tuple(size if isinstance(size, int) else 1 for size in shape)
    tensor = BYTES if dtype == BYTES.dtype else Tensor(dtype_name(dtype))
    fixed = all(isinstance(size, int) for size in shape[1:])
    return Port(sizes, replace(tensor, layout=layout), fixed)


def dtype_name(dtype: Any) -> Any:
    """Return a numpy dtype's name. Raises EngineError for one that no contract allows."""
    name = str(dtype) if isinstance(dtype, str) else np.dtype(dtype).name
    if name not in get_args(DType):
        known = ", ".join(get_args(DType))
        raise EngineError(f"the model has an input or output of {name}; kedge takes {known}")
    return name
