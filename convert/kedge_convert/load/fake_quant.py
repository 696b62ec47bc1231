"""Keep the ranges and rounded kernels of quantisation-aware training: fake quantisation.

A node FakeQuant* rounds to one of 256 steps of its range, in float. On a kernel the rounded numbers
are the model; on an activation it only imitates an int8 device.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from kedge_convert.load.graph_layer import FAKE_QUANT, FrozenGraph, as_identity, node_name
from kedge_convert.rewrite.activations import Replacement
from kedge_convert.rewrite.lowering import lower
from kedge_convert.toolkit import require
from kedge_runtime.errors import counted
from kedge_runtime.output import quiet


@dataclass(frozen=True)
class Plain:
    """A graph without fake quantisation.

    `kernels`: number of constants, rounded as in training; `activations`: of ranges taken out.
    """

    graph: FrozenGraph
    kernels: int = 0
    activations: int = 0

    def __str__(self) -> str:
        """Return one line for the user."""
        return (
            f"quantisation-aware: {counted(self.activations, 'activation range')} and "
            f"{counted(self.kernels, 'rounded kernel')}; tflite:int8 keeps both, all other targets "
            "the rounded kernels only"
        )


def plain(graph: FrozenGraph) -> Plain:
    """Return the graph with its kernels rounded, and float activations."""
    fakes = [node.name for node in graph.definition.node if node.op in FAKE_QUANT]
    if not fakes:
        return Plain(graph)
    behind = graph.downstream(node_name(graph.input)) | {node_name(graph.input)}
    kernels = [name for name in fakes if name not in behind]
    rounded = dict(zip(kernels, _values(graph, kernels), strict=True))

    def change(node: Any) -> None:
        if node.name in rounded:
            _as_constant(node, rounded[node.name])
        elif node.op in FAKE_QUANT:
            as_identity(node)

    without = graph.changed(change).pruned()
    return Plain(without, len(kernels), len(fakes) - len(kernels))


def trained(model: Any) -> Any:
    """Return a Keras model with its fake quantisation; None where it was trained without.

    `model`: any with a layer of `graph_layer.as_layer`.
    """
    graphs = [each.trained for each in model._flatten_layers() if getattr(each, "trained", None)]
    if not graphs:
        return None
    return lower(model, (_with_ranges, partial(_two_logits, graphs[0]))).model


def _with_ranges(layer: Any) -> Any:
    return layer.with_ranges() if getattr(layer, "trained", None) else None


def _two_logits(graph: FrozenGraph, layer: Any) -> Any:
    """Return the replacement that gives -z/2 and z/2 in the steps of z, a graph's one number.

    Their layer (output_activation.two_logits) has no trained ranges, and would stay float.
    """
    last = graph.output_range()
    if getattr(layer, "units", 0) != 2 or layer.kernel.shape != (1, 2) or last is None:
        return None
    low, high = (float(each) for each in _values(graph, [node_name(each) for each in last]))
    fake = require("tensorflow").quantization.fake_quant_with_min_max_args
    half, kernel = max(-low, high) / 2, np.asarray(layer.kernel)
    step = float(np.abs(kernel).max())

    def logits(value: Any) -> Any:
        rounded = fake(kernel, -step, step, narrow_range=True)
        return fake(require("tensorflow").matmul(value, rounded), -half, half)

    return Replacement(logits)


def _values(graph: FrozenGraph, names: list[str]) -> list[Any]:
    """Return the outputs of nodes that don't depend on the image."""
    tf = require("tensorflow")
    if not names:
        return []
    extract = tf.compat.v1.graph_util.extract_sub_graph
    definition, outputs = extract(graph.definition, names), [f"{name}:0" for name in names]
    run = tf.function(
        lambda: tf.graph_util.import_graph_def(definition, {}, outputs, name=""), autograph=False
    )
    with quiet():
        return [np.asarray(value) for value in run()]


def _as_constant(node: Any, value: Any) -> None:
    tf = require("tensorflow")
    node.op = "Const"
    del node.input[:]
    node.attr.clear()
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
