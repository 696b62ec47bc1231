"""Export formats: one module each, twins with the same two verbs.

`export(source, precision, options) -> Exported`: the unsealed model file, its structure checked,
and notes for the user. `options`: ExportOptions.

`describe(content, contract) -> Exported`: the same file with metadata that other programs read.

`PRECISIONS`: what `export` knows.
"""

from types import ModuleType

from kedge_convert.export import onnx, tflite

FORMATS: dict[str, ModuleType] = {"tflite": tflite, "onnx": onnx}
