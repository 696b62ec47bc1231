"""Find the layers whose weights are prepared: those of the source's float program.

Every source passes through a float TFLite program; so the same network gets the same integers,
whatever it was made by. Where the program can't be imported exactly, its own Keras layers serve.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kedge_convert.export import tflite_converter
from kedge_convert.images import ImageSplit, tensors
from kedge_convert.load import fake_quant
from kedge_convert.prepare import preparation
from kedge_convert.program import proof
from kedge_convert.program.calls import OperatorImportError
from kedge_convert.program.importing import imported
from kedge_convert.program.reading import read
from kedge_convert.source import Source
from kedge_convert.toolkit import ConversionError
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.errors import EngineError, one_line

PROVEN = 4  # calibration images on which an imported program must give the same answers
NO_LAYERS = "no layers to prepare"
TRAINED = "trained for int8, with ranges and rounded kernels of its own"
INEXACT = "its imported program gives other answers"


@dataclass(frozen=True)
class Preparable:
    """A source in layers that can be prepared, None without any; `reason`: why it's no program."""

    source: Source | None
    reason: str = ""


def preparable(source: Source, images: ImageSplit) -> Preparable:
    """Return the source's program, imported, or else the source where it has layers of Keras's."""
    rest = Preparable(source if kernels(source.model) else None, NO_LAYERS)
    if fake_quant.trained(source.model) is not None:
        return replace(rest, reason=TRAINED)
    try:
        content = tflite_converter.float32(source)
        names = frozenset(layer.name for layer in source.model._flatten_layers())
        model = imported(read(content), source.model.name, names)
        probes = tensors(images.calibration[:PROVEN], source.input)
        program = ModelContent(Path("program.tflite"), "tflite", content)
        if not proof.is_same(program, model, probes):
            return replace(rest, reason=INEXACT)
    except OperatorImportError as error:
        return replace(rest, reason=f"no rule imports the operator {error}")
    except (ConversionError, EngineError) as error:
        return replace(rest, reason=one_line(error))
    return Preparable(replace(source, model=model)) if kernels(model) else rest


def kernels(model: Any) -> list[Floats]:
    """Return the kernels of a model that can be prepared, in the order of its operators."""
    return [node.weights.kernel for node in preparation.plan(model).nodes if node.weights]
