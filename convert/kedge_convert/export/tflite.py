"""Keras to TFLite through TensorFlow's converter, with TFLite Metadata.

MediaPipe, Android's task library and Netron show the metadata. No maintained writer of it runs on
every Python that kedge does, and the whole of it is four kinds of field.
`kedge_runtime.modelfile.tflite_metadata` reads it back and has the field numbers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.export import flatbuffer, structure, tflite_converter
from kedge_convert.export.exported import STOCK, Exported, ExportOptions
from kedge_convert.export.tflite_converter import single
from kedge_convert.source import Source
from kedge_convert.toolkit import require
from kedge_runtime.artefact.contract import Contract, Normalisation
from kedge_runtime.artefact.file import LABELS
from kedge_runtime.artefact.kinds import Precision
from kedge_runtime.image.preprocessing import table
from kedge_runtime.modelfile import tflite_metadata as schema

__all__ = ["PRECISIONS", "describe", "export", "single", "takes_bytes"]

# A table: field number -> its value. An int is an enumeration, which all are bytes here.
Fields = dict[int, Any]

OLDEST_PARSER = "1.0.0"  # of the schema: the first that knows all that is used here


def describe(content: bytes, contract: Contract) -> Exported:
    """Return a .tflite file with TFLite Metadata, or as it is with the reason why not.

    The labels that it names lie where `kedge_runtime.artefact.file.seal` puts them.
    """
    reason = why_not(contract)
    if reason:
        return Exported(content, (f"no TFLite Metadata: {reason}",))
    model = flatbuffer.unpack(content)
    model.buffers[_place_in(model)].data = np.frombuffer(_packed(contract), np.uint8)
    return Exported(flatbuffer.pack(model))


def _place_in(model: Any) -> int:
    """Return the number of the buffer for the metadata, a new one unless there is one."""
    for entry in model.metadata or ():
        if entry.name == schema.NAME.encode():
            return int(entry.buffer)
    classes, place = flatbuffer.schema(), len(model.buffers)
    model.buffers.append(classes.BufferT())
    entry = classes.MetadataT(name=schema.NAME.encode(), buffer=place)
    model.metadata = [*(model.metadata or ()), entry]
    return place


def why_not(contract: Contract) -> str:
    """Return why it can't say how images become this contract's input, or nothing."""
    if contract.input.normalisation.colour == "bgr":
        return "it has no BGR, which this model takes"
    if contract.input.tensor.layout != "nhwc":
        return "its readers want images with a channel axis at the end, this model takes others"
    if contract.input.tensor.dtype == "uint8" and not takes_bytes(contract):
        return "its readers put bytes into uint8 inputs as they are, this model wants others"
    return ""


def takes_bytes(contract: Contract) -> bool:
    """Whether each byte stays itself, but for the step that rounding to a zero point costs."""
    entries = table(contract.input.normalisation, contract.input.tensor)[0].astype(int)
    return bool(np.abs(entries - np.arange(256)[:, None]).max() <= 1)


def _packed(contract: Contract) -> bytes:
    builder = require("flatbuffers").Builder(0)
    builder.Finish(_table(builder, _model(contract)), file_identifier=schema.METADATA_IDENTIFIER)
    return bytes(builder.Output())


def _model(contract: Contract) -> Fields:
    return {
        schema.TITLE: contract.provenance.source,
        schema.DESCRIPTION: "sealed by kedge, with its whole contract in the archive behind it",
        schema.SUBGRAPHS: [
            {schema.INPUTS: [_input(contract)], schema.OUTPUTS: [_output(contract)]}
        ],
        schema.MIN_PARSER: OLDEST_PARSER,
    }


def _input(contract: Contract) -> Fields:
    size = contract.input.geometry
    mean, std = _in_bytes(contract.input.normalisation)
    options = {schema.MEAN: mean, schema.STD: std}
    grey = contract.input.normalisation.colour == "grey"
    article, colour = ("a grey", schema.GREY) if grey else ("an RGB", schema.RGB)
    return {
        schema.TENSOR_NAME: "image",
        schema.TENSOR_DESCRIPTION: f"{article} picture of {size.width} x {size.height} pixels",
        schema.CONTENT: _union(schema.IMAGE, {schema.COLOUR: colour}),
        schema.UNITS: [_union(schema.NORMALISATION, options)],
    }


def _output(contract: Contract) -> Fields:
    labels = {schema.FILE_NAME: LABELS["tflite"], schema.FILE_TYPE: schema.AXIS_LABELS}
    return {
        schema.TENSOR_NAME: contract.output.kind,
        schema.TENSOR_DESCRIPTION: f"{contract.output.kind}, one per class",
        schema.CONTENT: _union(schema.FEATURE, {}),
        schema.FILES: [labels] if contract.labels else [],
    }


def _in_bytes(normalisation: Normalisation) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and std of (byte - mean) / std: (byte / d - m) / s = (byte - d m) / (d s)."""
    pair = np.array([normalisation.mean, normalisation.std]) * normalisation.divisor
    mean, std = pair.astype(np.float32)
    return mean, std


def _union(kind: int, fields: Fields) -> Fields:
    return {schema.KIND: kind, schema.VALUE: fields}


def _table(builder: Any, fields: Fields) -> int:
    """Write a table, what it points to first; return where it lies."""
    values = {n: v if isinstance(v, int) else _place(builder, v) for n, v in fields.items()}
    builder.StartObject(1 + max(fields, default=-1))
    for number, value in values.items():
        byte = isinstance(fields[number], int)
        slot = builder.PrependInt8Slot if byte else builder.PrependUOffsetTRelativeSlot
        slot(number, value, 0)
    return int(builder.EndObject())


def _vector(builder: Any, tables: list[Fields]) -> int:
    places = [_table(builder, each) for each in tables]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())


def _place(builder: Any, value: Any) -> int:
    return int(_WRITERS[type(value)](builder, value))


_WRITERS: dict[type, Any] = {
    str: lambda builder, text: builder.CreateString(text),
    np.ndarray: lambda builder, numbers: builder.CreateNumpyVector(numbers),
    dict: _table,
    list: _vector,
}


# Precision -> its file, from the float file. All float targets share one conversion.
FROM_FLOAT: dict[Precision, Callable[[bytes], bytes]] = {
    "float32": bytes,
    "float16": tflite_converter.halved,
}
# Precision -> a recipe of its own: a run of the converter, or two where the first may fail.
RECIPES: dict[Precision, Callable[[Source, ExportOptions], Exported]] = {
    "dynamic": tflite_converter.dynamic,
    "int8": tflite_converter.int8,
    "int16x8": tflite_converter.int16x8,
}
PRECISIONS = (*FROM_FLOAT, *RECIPES)


def export(source: Source, precision: Precision, options: ExportOptions = STOCK) -> Exported:
    """Return the flatbuffer of `source` in `precision`, its structure checked.

    Batch 1; integers in and out for int16x8 and, as the scheme says, for int8. Raises
    ConversionError.
    """
    if precision in FROM_FLOAT:
        exported = Exported(FROM_FLOAT[precision](tflite_converter.float32(source)))
    else:
        exported = RECIPES[precision](source, options)
    structure.check("tflite", exported.content, source)
    return exported
