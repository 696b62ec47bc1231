"""Export formats: one module each, twins with one verb.

`export(source, precision, calibration, tick) -> Exported`: the unsealed model file, its structure
checked, and what is to be said of it. `calibration` are paths of pictures; `tick` is called for
each one that is used.
"""

from types import ModuleType

from kedge_convert.formats import onnx, tflite

FORMATS: dict[str, ModuleType] = {"tflite": tflite, "onnx": onnx}
