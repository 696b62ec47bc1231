"""Read TFLite Metadata, which files for MediaPipe and Android's task library contain.

It is a separate flatbuffer in a buffer of the model. Its labels are a text file in the archive
behind the model. `kedge_convert.export.tflite` writes the same. Field numbers:
metadata_schema.fbs of TensorFlow Lite Support, of which MediaPipe has a copy.
"""

import struct

from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.contract import Normalisation
from kedge_runtime.errors import ArtefactError
from kedge_runtime.frozen import dataclass
from kedge_runtime.modelfile.encodings import Table, root
from kedge_runtime.modelfile.tflite_schema import BUFFERS, DATA, IDENTIFIER

NAME, METADATA_IDENTIFIER = "TFLITE_METADATA", b"M001"
METADATA = 6  # Model, in schema.fbs
ENTRY_NAME, ENTRY_BUFFER = 0, 1  # Metadata, in schema.fbs
TITLE, DESCRIPTION, SUBGRAPHS, MIN_PARSER = 0, 1, 3, 7  # ModelMetadata
INPUTS, OUTPUTS = 2, 3  # SubGraphMetadata
TENSOR_NAME, TENSOR_DESCRIPTION, CONTENT, UNITS, FILES = 0, 1, 3, 4, 6  # TensorMetadata
KIND, VALUE = 0, 1  # a union, in Content and ProcessUnit: the member's number, and the member
FEATURE, IMAGE = 1, 2  # ContentProperties
COLOUR, RGB, GREY = 0, 1, 2  # ImageProperties, ColorSpaceType
NORMALISATION = 1  # ProcessUnitOptions
MEAN, STD = 0, 1  # NormalizationOptions
FILE_NAME, FILE_TYPE = 0, 2  # AssociatedFile
AXIS_LABELS = 2  # AssociatedFileType


@dataclass(frozen=True)
class Metadata:
    """A model's normalisation, and the archive's member with its labels; None and "" if absent."""

    normalisation: Normalisation | None = None
    labels: str = ""


def read(content: ModelContent) -> Metadata:
    """Return the metadata of a .tflite model's first input and output.

    Raises ArtefactError for damaged bytes, ContractError for an impossible normalisation.
    """
    try:
        return _metadata(_raw(root(memoryview(content.data), IDENTIFIER)))
    except (ValueError, IndexError, OverflowError, struct.error) as error:
        raise ArtefactError(
            f"{content.path}: no readable TFLite Metadata ({error}); "
            "state normalisation and labels in the contract"
        ) from None


def _raw(model: Table) -> memoryview | None:
    """Return the bytes of the metadata, None for a model without."""
    for entry in model.tables(METADATA):
        if entry.text(ENTRY_NAME) == NAME:
            return list(model.tables(BUFFERS))[entry.number(ENTRY_BUFFER, "I")].raw(DATA)
    return None


def _metadata(raw: memoryview | None) -> Metadata:
    graph = raw and next(root(raw, METADATA_IDENTIFIER).tables(SUBGRAPHS), None)
    if not graph:
        return Metadata()
    first_input, first_output = (next(graph.tables(each), None) for each in (INPUTS, OUTPUTS))
    return Metadata(
        _normalisation(first_input) if first_input else None,
        _labels(first_output) if first_output else "",
    )


def _normalisation(tensor: Table) -> Normalisation | None:
    for unit in tensor.tables(UNITS):
        options = unit.table(VALUE)
        if unit.number(KIND, "B") == NORMALISATION and options:
            mean, std = _three(options, MEAN), _three(options, STD)
            return Normalisation("grey" if _is_grey(tensor) else "rgb", mean=mean, std=std)
    return None


def _is_grey(tensor: Table) -> bool:
    content = tensor.table(CONTENT)
    image = content.table(VALUE) if content and content.number(KIND, "B") == IMAGE else None
    return image is not None and image.number(COLOUR, "b") == GREY


def _three(options: Table, field: int) -> tuple[float, ...]:
    """Return a number per channel; a single one is for all."""
    values = options.numbers(field, "f")
    if len(values) not in (1, 3):
        raise ValueError(f"a normalisation of {len(values)} channels")
    return tuple(values if len(values) == 3 else values * 3)


def _labels(tensor: Table) -> str:
    # The first is the class's name, as MediaPipe has it; further ones are translations.
    files = (each for each in tensor.tables(FILES) if each.number(FILE_TYPE, "b") == AXIS_LABELS)
    return next((each.text(FILE_NAME) for each in files), "")
