"""TFLite's static int8."""

from typing import Any


def stock(tf: Any, converter: Any, samples: Any) -> None:
    """Have TensorFlow's converter quantise: every tensor int8, its range by min and max."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
