"""TFLite's static int8."""

from typing import Any

from kedge_convert.formats.tflite_converter import Samples, set_dense
from kedge_convert.scheme import Scheme


def stock(scheme: Scheme, tf: Any, converter: Any, samples: Samples) -> None:
    """Have TensorFlow's converter quantise: every tensor int8, its range by min and max."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = getattr(tf, scheme.input)
    converter.inference_output_type = getattr(tf, scheme.output)
    set_dense(scheme, converter)
