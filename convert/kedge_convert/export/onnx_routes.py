"""Choose the float ONNX model of a source among several routes: the most exact one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from kedge_convert.export import structure, tf2onnx, tflite_converter
from kedge_convert.export.onnx_graph import INPUT, OUTPUT
from kedge_convert.export.onnx_program import writing
from kedge_convert.export.onnx_program.writing import Written
from kedge_convert.images import tensors
from kedge_convert.memory import StoredBytes
from kedge_convert.source import Source
from kedge_convert.toolkit import ConversionError, require
from kedge_runtime.errors import one_line
from kedge_runtime.files import temporary_folder

Route = Callable[[Source, Path], Written]


def direct(source: Source, folder: Path) -> Written:
    """Return the model of the float TFLite file, written operator by operator."""
    return writing.write(tflite_converter.float32(source))


def through_tflite(source: Source, folder: Path) -> Written:
    """Return tf2onnx's model of the float TFLite file."""
    return Written(tf2onnx.through_tflite(source, folder))


def through_graph(source: Source, folder: Path) -> Written:
    """Return tf2onnx's model of the Keras model's own graph."""
    return Written(tf2onnx.through_graph(source, folder))


# In the order in which they are tried; tf2onnx's need more memory and time.
ROUTES: dict[str, Route] = {
    "direct": direct,
    "through TFLite": through_tflite,
    "through the graph": through_graph,
}

# Of the largest logit: a graph that is wrong is off by far more. How exact the chosen one is, is
# for the parity check to say, on more images.
TOLERANCE = 1e-3
# Routes whose errors differ by less are equally exact: sums in another order differ by 1e-6.
EQUAL = 1e-5
PROBES = 4


@dataclass(frozen=True)
class RoutedModel:
    """The model of one route. `error`: the largest of its logits, as a share of the largest.

    `names`: as of Written.
    """

    nodes: int
    error: float
    stored: StoredBytes
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """Its file, read anew where it is a long one."""
        return self.stored.read()


# By the Keras model, for as long as that lives.
_FLOATS: WeakKeyDictionary[Any, RoutedModel] = WeakKeyDictionary()


def float32(source: Source) -> bytes:
    """Return the float model, made once for all that starts from it."""
    return _routed(source).content


def names(source: Source) -> dict[str, str]:
    """Return the tensors of the float TFLite program by the values that have the same numbers.

    None of them where the model was not written from it.
    """
    return {value: name for name, value in _routed(source).names.items()}


def _routed(source: Source) -> RoutedModel:
    if source.model not in _FLOATS:
        _FLOATS[source.model] = _chosen(source)
    return _FLOATS[source.model]


def _chosen(source: Source) -> RoutedModel:
    """Return the model of the best route.

    Of the routes whose model passes every check it is the most exact one; of those that are equally
    exact the one with the fewest nodes. Behind one that is exact no other is tried.
    """
    reasons: list[str] = []
    models: list[RoutedModel] = []
    with temporary_folder() as folder:
        for name, route in ROUTES.items():
            try:
                models.append(checked(route, source, folder))
            except OSError:  # a full disk is no fault of the route's
                raise
            # tf2onnx raises whatever its parts raise; another route may do, or all are named.
            except Exception as error:
                reasons.append(f"{name}: {one_line(error)}")
            if models and models[-1].error <= EQUAL:
                break
    if not models:
        raise ConversionError(f"{source.name}: no route to ONNX: {'; '.join(reasons)}")
    return best(models)


def best(models: Sequence[RoutedModel]) -> RoutedModel:
    """Return the one with the fewest nodes of those within EQUAL of the most exact."""
    least = min(model.error for model in models)
    exact = [model for model in models if model.error <= least + EQUAL]
    return min(exact, key=attrgetter("nodes"))


def checked(route: Route, source: Source, folder: Path) -> RoutedModel:
    """Return the model of one route. Raises for a model that is wrong."""
    written = route(source, folder)
    model, names = guard(written.model), written.names
    nodes, content = len(model.graph.node), bytes(model.SerializeToString(deterministic=True))
    del written, model  # it is as large as the file, and the checks need several times that
    structure.check("onnx", content, source)
    error = _probe(content, source)
    # Written so that a NaN fails.
    if not error <= TOLERANCE:
        raise ConversionError(f"its logits are off by {error:.2g} of the largest")
    return RoutedModel(nodes, error, StoredBytes(content), names)


def _probe(content: bytes, source: Source) -> float:
    """Return the relative error of the logits on the source's images, or else on noise."""
    probes = list(tensors(source.images, source.input)) or structure.probes(source, PROBES)
    reference = source.logits(iter(probes))
    session = require("onnxruntime").InferenceSession(content)
    rows = [session.run([OUTPUT], {INPUT: probe})[0].reshape(1, -1) for probe in probes]
    answers = np.concatenate(rows)
    return float(np.abs(answers - reference).max() / max(np.abs(reference).max(), 1e-12))


TINY = np.float32(np.finfo(np.float32).tiny)


def guard(model: Any) -> Any:
    """Return the ModelProto with zeros before a MaxPool written as TINY; changes it in place."""
    pooled = {node.input[0] for node in model.graph.node if node.op_type == "MaxPool"}
    constants = {each.name: each for each in model.graph.initializer}
    pads = [node for node in model.graph.node if node.op_type == "Pad" and node.output[0] in pooled]
    for pad in filter(lambda pad: _of_zeros(pad, constants), pads):
        name = f"{pad.output[0]}/value"
        value = require("onnx").numpy_helper.from_array(np.array(TINY), name)
        model.graph.initializer.append(value)
        pad.input[:] = [*pad.input[:2], name, *pad.input[3:]]
    return model


def _of_zeros(pad: Any, constants: dict[str, Any]) -> bool:
    """Whether it pads with a constant that is zero, as it does when nothing is said."""
    modes = [each.s for each in pad.attribute if each.name == "mode"]
    if modes and modes != [b"constant"]:
        return False
    if len(pad.input) < 3 or not pad.input[2]:
        return True
    held = constants.get(pad.input[2])
    return held is not None and not require("onnx").numpy_helper.to_array(held).any()
