"""Run TFLite models on LiteRT, with delegates such as the Edge TPU's.

The library is `ai_edge_litert`, or `tflite_runtime` where the former has no wheel.
"""

import ctypes
import re
from dataclasses import field, replace
from types import ModuleType
from typing import Any

from kedge_runtime.arrays import Array
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.contract import Quantisation, Tensor
from kedge_runtime.engines import stderr
from kedge_runtime.engines.base import (
    BYTES,
    Engine,
    Port,
    dtype_name,
    image_port,
    import_library,
    single_ports,
)
from kedge_runtime.engines.choice import (
    EDGETPU_INSTALL,
    EDGETPU_LIBRARY,
    EngineOptions,
    Kernels,
)
from kedge_runtime.errors import EngineError, UsageError, about, one_line
from kedge_runtime.frozen import dataclass

_EDGETPU = re.compile(r"edgetpu(?::(?:(usb|pci)|(\d+)))?")
_VERBS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")


@dataclass(frozen=True)
class Delegate:
    """A delegate's shared library, its options, and how to install it."""

    library: str
    options: dict[str, str] = field(default_factory=dict)
    install: str = "give edgetpu[:usb|pci|N] or the path of a delegate's shared library"


def parse_delegate(text: str) -> Delegate:
    """Read `edgetpu[:usb|pci|N]`, N from 0, or a library's path. Raises UsageError."""
    if not text.startswith("edgetpu") or "." in text:
        return Delegate(text)
    if not (match := _EDGETPU.fullmatch(text)):
        raise UsageError(f"delegate is {text!r}, an Edge TPU is edgetpu, edgetpu:usb, :pci or :N")
    bus, number = match.groups()
    device = bus or (f":{number}" if number else "")
    return Delegate(EDGETPU_LIBRARY, {"device": device} if device else {}, EDGETPU_INSTALL)


def load_delegate(litert: ModuleType, text: str) -> Any:
    """Return LiteRT's handle of a delegate. Raises EngineError with the cause and the cure."""
    delegate = parse_delegate(text)
    _probe(delegate)
    try:
        return litert.load_delegate(delegate.library, delegate.options)
    except ValueError as error:
        reason = one_line(error).removeprefix(f"Failed to load delegate from {delegate.library}")
        raise EngineError(
            f"the delegate {text} finds no device it can use:"
            f"{reason or ' no reason given'}; is it plugged in, and may you open it?"
        ) from None


def _probe(delegate: Delegate) -> None:
    """Load the library without LiteRT first: its failure leaves an object that prints errors."""
    try:
        library = ctypes.CDLL(delegate.library)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = one_line(error)
        raise EngineError(
            f"the delegate's library can't be loaded ({reason}): {delegate.install}"
        ) from None
    if missing := [verb for verb in _VERBS if not hasattr(library, verb)]:
        raise EngineError(f"{delegate.library} is no LiteRT delegate: it has no {missing[0]}")


# Names in LiteRT's OpResolverType.
RESOLVERS: dict[Kernels, str] = {
    "default": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}

# What LiteRT prints on stderr for every model; it can't be told not to.
_CREATED = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
XNNPACK = "xnnpack"  # in LiteRT's message when its default delegate refuses a model


class LiteRT(Engine):
    """An interpreter; its tensors are allocated again only when the batch size changes."""

    name = "litert"
    # std::bad_alloc and std::out_of_range come as the last two.
    faults = (RuntimeError, ValueError, MemoryError, IndexError)

    def __init__(self, interpreter: Any, library: str) -> None:
        """Take an interpreter whose tensors are allocated."""
        one_input, one_output = single_ports(
            interpreter.get_input_details(), interpreter.get_output_details()
        )
        super().__init__(image_port(_port(one_input)), _port(one_output))
        self.library = library
        self._interpreter = interpreter
        self._input_index, self._output_index = one_input["index"], one_output["index"]
        self._shape = self.input_shape

    def set(self, tensors: Array) -> None:
        """Copy the inputs into the interpreter."""
        if tensors.shape != self._shape:
            self._resize(tensors.shape)
        self._interpreter.set_tensor(self._input_index, tensors)

    def invoke(self) -> None:
        """Run the network."""
        self._interpreter.invoke()

    def get(self) -> Array:
        """Copy the output out of the interpreter."""
        output: Array = self._interpreter.get_tensor(self._output_index)
        return output

    def release(self) -> None:
        """Drop the interpreter."""
        self._interpreter = None

    def _resize(self, shape: tuple[int, ...]) -> None:
        # Noted first: after a refusal the interpreter has the new shape and no tensors.
        self._shape = shape
        self._interpreter.resize_tensor_input(self._input_index, shape)
        self._interpreter.allocate_tensors()


def open_engine(content: ModelContent, options: EngineOptions) -> LiteRT:
    """Load a .tflite model, sealed or not. Raises EngineError."""
    litert = import_library("litert")
    with about(content.path):
        return _open(litert, content, options)


def _open(litert: ModuleType, content: ModelContent, options: EngineOptions) -> LiteRT:
    try:
        return _load(litert, content, options)
    except LiteRT.faults as error:
        reason = one_line(error)
        if options.kernels != "default" or options.delegate or XNNPACK not in reason.lower():
            raise EngineError(_describe(reason)) from None
    engine = _open(litert, content, replace(options, kernels="builtin"))
    engine.note = f"XNNPACK refuses the model, LiteRT's own slower kernels run it ({reason})"
    return engine


def _load(litert: ModuleType, content: ModelContent, options: EngineOptions) -> LiteRT:
    with stderr.without(_CREATED):
        interpreter = _interpreter(litert, content, options)
    return LiteRT(interpreter, litert.__name__.partition(".")[0])


def _interpreter(litert: ModuleType, content: ModelContent, options: EngineOptions) -> Any:
    interpreter = litert.Interpreter(
        model_content=content.data,
        num_threads=options.thread_count,
        experimental_delegates=(
            [load_delegate(litert, options.delegate)] if options.delegate else None
        ),
        experimental_op_resolver_type=litert.OpResolverType[RESOLVERS[options.kernels]],
    )
    interpreter.allocate_tensors()
    return interpreter


def _describe(message: str) -> str:
    if "edgetpu-custom-op" in message:
        return (
            "compiled for the Edge TPU, which the CPU can't run: give --delegate edgetpu, "
            "or run the file it was compiled from"
        )
    return f"LiteRT can't load it: {message}"


def _port(details: dict[str, Any]) -> Port:
    dtype = dtype_name(details["dtype"])
    shape = tuple(map(int, details["shape"]))
    if "int" not in dtype:
        return Port(shape, Tensor(dtype))
    scale, zero_point = details["quantization"]
    if dtype == BYTES.dtype and not len(details["quantization_parameters"]["scales"]):
        return Port(shape, BYTES)
    if not scale:
        raise EngineError(f"the model has a tensor of {dtype} without one scale; convert it again")
    return Port(shape, Tensor(dtype, Quantisation(float(scale), int(zero_point))))
