"""Static int8 in our own hands: which range each tensor gets, and which operators stay float.

Twins of five verbs, see `Static`.
"""

from kedge_convert.quantise import onnx, tflite
from kedge_convert.quantise.ranges import Static

STATIC: dict[str, Static] = {"tflite": tflite, "onnx": onnx}
