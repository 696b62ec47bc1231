"""Export formats: one module each, twins with the same two verbs.

`export(source, precision, calibration, tick, scheme) -> Exported`: the unsealed model file, its
structure checked, and what is to be said of it. `calibration` are paths of pictures; `tick` is
called for each one that is used; `scheme` lays out the integers.

`describe(content, contract) -> Exported`: the same file, saying of itself what other programs read.
"""

from types import ModuleType

from kedge_convert.export import onnx, tflite

FORMATS: dict[str, ModuleType] = {"tflite": tflite, "onnx": onnx}
