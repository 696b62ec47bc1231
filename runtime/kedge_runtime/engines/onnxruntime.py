"""Run ONNX models on onnxruntime's CPU provider."""

from typing import Any

from kedge_runtime.arrays import Array
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.engines.base import (
    Engine,
    Port,
    float_port,
    image_port,
    import_library,
    single_ports,
)
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import EngineError, about, one_line

# Without it, x86 processors that lack VNNI add products of int8 in 16 bits, which saturate: a net
# that is right on every other machine answers wrongly there (onnxruntime's documentation,
# kOrtSessionOptionsAvx2PrecisionMode).
_PRECISION = "session.x64quantprecision"
IMPRECISE = (
    "onnxruntime can't add this model's int8 precisely: sums may saturate on x86 processors "
    "without VNNI"
)
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}


class OnnxRuntime(Engine):
    """A session; inputs and outputs are float, or the input is bytes, in quantised models too."""

    name = library = "onnxruntime"
    # onnxruntime's errors have no base of their own: InvalidGraph is a plain Exception.
    faults = (Exception,)

    def __init__(self, session: Any) -> None:
        """Take a session."""
        one_input, one_output = single_ports(session.get_inputs(), session.get_outputs())
        super().__init__(image_port(_port(one_input)), _port(one_output))
        self._session, self._input, self._outputs = session, one_input.name, [one_output.name]
        self._feed: dict[str, Array] = {}
        self._results: list[Array] = []

    def set(self, tensors: Array) -> None:
        """Keep the inputs: onnxruntime copies them with the run."""
        self._feed = {self._input: tensors}

    def invoke(self) -> None:
        """Run the network."""
        self._results = self._session.run(self._outputs, self._feed)

    def get(self) -> Array:
        """Return the raw output, a new array each time."""
        return self._results[0]

    def release(self) -> None:
        """Drop the session and the last run's arrays."""
        self._session, self._feed, self._results = None, {}, []


def open_engine(content: ModelContent, options: EngineOptions) -> OnnxRuntime:
    """Load an .onnx model, sealed or not. Raises EngineError."""
    onnxruntime = import_library("onnxruntime")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.thread_count
    settings.log_severity_level = 4  # fatal only: errors are raised as well
    with about(content.path):
        try:
            session, note = precise_session(content.data, settings)
        except OnnxRuntime.faults as error:
            raise EngineError(f"onnxruntime can't load it: {one_line(error)}") from None
        engine = OnnxRuntime(session)
        engine.note = note
        return engine


def precise_session(model: bytes, settings: Any) -> tuple[Any, str]:
    """Return a session that adds int8 without saturating, else one with a note for the user.

    `model`: its bytes; `settings`: a SessionOptions.
    """
    session = import_library("onnxruntime").InferenceSession
    providers = ["CPUExecutionProvider"]
    settings.add_session_config_entry(_PRECISION, "1")
    try:
        return session(model, settings, providers=providers), ""
    # onnxruntime 1.31 fails on weights that two operators share.
    except OnnxRuntime.faults:
        settings.add_session_config_entry(_PRECISION, "0")
        return session(model, settings, providers=providers), IMPRECISE


def _port(value: Any) -> Port:
    return float_port(value.shape, _DTYPES.get(value.type, value.type))
