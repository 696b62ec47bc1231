"""Export formats: one module each, twins with the same two verbs.

`export(source, precision, options) -> Exported`: the unsealed model file, its structure checked,
and notes for the user. `options`: ExportOptions.

`describe(content, contract) -> Exported`: the same file with metadata that other programs read.

`PRECISIONS`: what `export` knows.
"""

from typing import Protocol

from kedge_convert.export import onnx, tflite
from kedge_convert.export.exported import STOCK, Exported, ExportOptions
from kedge_convert.source import Source
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.kinds import Precision


class Format(Protocol):
    """The verbs of a format's module; `PRECISIONS` lists what `export` takes."""

    PRECISIONS: tuple[Precision, ...]

    def export(
        self, source: Source, precision: Precision, options: ExportOptions = STOCK
    ) -> Exported:
        """Return the unsealed model file. Raises ConversionError."""

    def describe(self, content: bytes, contract: Contract) -> Exported:
        """Return the file with metadata that other programs read."""


FORMATS: dict[str, Format] = {"tflite": tflite, "onnx": onnx}
