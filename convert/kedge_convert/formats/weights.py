"""Weights that an ONNX graph was made without: put in as initialisers, constants computed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.toolkit import require

LARGE = 256  # numbers; what is smaller may be looked at (strides, paddings, scalars)


def put_back(model: Any, hidden: Mapping[str, NDArray[Any]]) -> Any:
    """Return `model` with its inputs called as in `hidden` filled in and folded.

    tf2onnx turns a kernel by a Transpose in front of its convolution; that is done here, once.
    """
    numpy_helper = require("onnx.numpy_helper")
    graph = model.graph
    known = dict(hidden) | {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in hidden]
    left = [node for node in graph.node if not _folded(node, known)]
    used = {name for node in left for name in node.input} | {each.name for each in graph.output}
    for field, kept in ((graph.node, left), (graph.input, inputs), (graph.initializer, ())):
        del field[:]
        field.extend(kept)
    for name in [name for name in known if name in used]:
        graph.initializer.append(numpy_helper.from_array(known.pop(name), name))
    return model


def _folded(node: Any, known: dict[str, NDArray[Any]]) -> bool:
    """Compute a node of constants only, and say whether it was one."""
    if not node.input or not all(name in known for name in node.input if name):
        return False
    evaluator = require("onnx.reference").ReferenceEvaluator(node)
    values = evaluator.run(None, {name: known[name] for name in node.input if name})
    known.update(zip(node.output, map(np.ascontiguousarray, values), strict=True))
    return True
