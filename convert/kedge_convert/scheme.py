"""How the integers of an int8 file are laid out: what a device asks of a quantiser."""

from dataclasses import dataclass

from kedge_runtime.contract import DType


@dataclass(frozen=True)
class Scheme:
    """One layout; the defaults are what every CPU runs.

    `input`, `output`: the types of a TFLite file's ends (`inference_input_type` of TensorFlow's
    converter); ONNX's stay float32. `per_channel_dense`: whether TFLite's dense layers have a scale
    per output, or one for all (`_experimental_disable_per_channel_quantization_for_dense_layers`).
    `reduce_range`: whether ONNX's weights keep to 7 bits, as the option of that name of
    `onnxruntime.quantization.quantize_static`.
    """

    input: DType = "int8"
    output: DType = "int8"
    per_channel_dense: bool = True
    reduce_range: bool = False


PLAIN = Scheme()
