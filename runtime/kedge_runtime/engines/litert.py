"""TFLite models on LiteRT: `ai_edge_litert`, or `tflite_runtime` where the former has no wheel."""

from dataclasses import replace
from types import ModuleType
from typing import Any

from kedge_runtime.content import ModelContent
from kedge_runtime.contract import Quantisation, Tensor
from kedge_runtime.engines import EngineOptions, Kernels
from kedge_runtime.engines.base import (
    BYTES,
    Array,
    Engine,
    Port,
    dtype_name,
    image_port,
    import_library,
    only_ends,
)
from kedge_runtime.errors import EngineError, one_line

# Names in LiteRT's OpResolverType.
RESOLVERS: dict[Kernels, str] = {
    "default": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}

XNNPACK = "xnnpack"  # in LiteRT's message when its default delegate refuses a model


class LiteRT(Engine):
    """One interpreter; its tensors are allocated again only when the batch size changes."""

    name = "litert"
    # std::bad_alloc and std::out_of_range come as the last two.
    faults = (RuntimeError, ValueError, MemoryError, IndexError)

    def __init__(self, interpreter: Any, library: str) -> None:
        """Take an interpreter whose tensors are allocated."""
        taken, given = only_ends(interpreter.get_input_details(), interpreter.get_output_details())
        super().__init__(image_port(_port(taken)), _port(given))
        self.library = library
        self._interpreter = interpreter
        self._input_index, self._output_index = taken["index"], given["index"]
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

    def _resize(self, shape: tuple[int, ...]) -> None:
        # Noted first: after a refusal the interpreter has the new shape and no tensors.
        self._shape = shape
        self._interpreter.resize_tensor_input(self._input_index, shape)
        self._interpreter.allocate_tensors()


def open_engine(content: ModelContent, options: EngineOptions) -> LiteRT:
    """Load a .tflite model, sealed or not. Raises EngineError."""
    litert = import_library("litert")
    try:
        return _opened(litert, content, options)
    except EngineError as error:
        raise EngineError(f"{content.path}: {error}") from None
    except LiteRT.faults as error:
        reason = one_line(error)
        if options.kernels != "default" or options.delegate or XNNPACK not in reason.lower():
            raise EngineError(f"{content.path}: {_reason(reason)}") from None
    engine = open_engine(content, replace(options, kernels="builtin"))
    engine.note = f"XNNPACK refuses the model, LiteRT's own slower kernels run it ({reason})"
    return engine


def _opened(litert: ModuleType, content: ModelContent, options: EngineOptions) -> LiteRT:
    interpreter = litert.Interpreter(
        model_content=content.data,
        num_threads=options.thread_count,
        experimental_delegates=(
            [_delegate(litert, options.delegate)] if options.delegate else None
        ),
        experimental_op_resolver_type=litert.OpResolverType[RESOLVERS[options.kernels]],
    )
    interpreter.allocate_tensors()
    return LiteRT(interpreter, litert.__name__.partition(".")[0])


def _delegate(litert: ModuleType, text: str) -> Any:
    # Few devices have one.
    from kedge_runtime.engines.delegates import load_delegate

    return load_delegate(litert, text)


def _reason(message: str) -> str:
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
