"""Choose the layers whose weights are prepared: the source's own, or those of its float program."""

import math
from dataclasses import dataclass, replace
from typing import Any

from kedge_convert.export import tflite_converter
from kedge_convert.images import ImageSplit, tensors
from kedge_convert.load import fake_quant
from kedge_convert.prepare import preparation
from kedge_convert.program import proof
from kedge_convert.program.calls import ForeignOperatorError
from kedge_convert.program.importing import imported
from kedge_convert.program.reading import read
from kedge_convert.source import Source
from kedge_convert.toolkit import ConversionError
from kedge_runtime.errors import EngineError, one_line

PROVEN = 4  # calibration images on which an imported program must give the same answers
NO_LAYERS = "no layers to prepare"
TRAINED = "trained for int8, with ranges and rounded kernels of its own"
INEXACT = "its imported program gives other answers"


@dataclass(frozen=True)
class Preparable:
    """A source in layers that can be prepared, None without any; `reason`: why some can't be."""

    source: Source | None
    reason: str = ""


def preparable(source: Source, images: ImageSplit) -> Preparable:
    """Return the source itself where all its kernels can be prepared, else its program, imported.

    Of both the one with more kernels that can be prepared. A graph's layers are no Keras layers;
    its program has the same operators whatever it was made by.
    """
    own = prepared_numbers(source.model)
    if own >= _numbers(source.model):
        return Preparable(source)
    rest = Preparable(source) if own else Preparable(None, NO_LAYERS)
    if fake_quant.trained(source.model) is not None:
        return replace(rest, reason=TRAINED)
    try:
        content = tflite_converter.float32(source)
        model = imported(read(content), source.model.name)
        probes = tensors(images.calibration[:PROVEN], source.input)
        if prepared_numbers(model) <= own:
            return rest
        if not proof.is_same(content, model, probes):
            return replace(rest, reason=INEXACT)
    except ForeignOperatorError as error:
        return replace(rest, reason=f"no rule imports the operator {error}")
    except (ConversionError, EngineError) as error:
        return replace(rest, reason=one_line(error))
    return Preparable(replace(source, model=model))


def prepared_numbers(model: Any) -> int:
    """Return how many numbers the kernels hold that can be prepared."""
    nodes = preparation.plan(model).nodes
    return sum(node.weights.kernel.size for node in nodes if node.weights)


def _numbers(model: Any) -> int:
    """Return how many numbers a model's kernels hold."""
    return sum(math.prod(each.shape) for each in model.weights if len(each.shape) > 1)
