"""Static int8 with chosen ranges and chosen float operators: one module each format.

The modules are twins of five verbs, see `Static`.
"""

from kedge_convert.quantise import onnx, tflite
from kedge_convert.quantise.ranges import Static

STATIC: dict[str, Static] = {"tflite": tflite, "onnx": onnx}
