"""A Keras model in words that a toolkit has: single layers are replaced by the same function.

Each module holds one idea: rules that take a layer (or a Keras operation) and return what stands
for it, a layer or a Stand, or None to leave it. `lower` applies them to the flattened graph.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kedge_convert.lowering.activations import activation, elementwise, prelu
from kedge_convert.lowering.depthwise import depthwise
from kedge_convert.lowering.exponentials import exponential
from kedge_convert.lowering.gelu import gelu
from kedge_convert.lowering.groups import groups
from kedge_convert.lowering.norms import layer_norm
from kedge_convert.lowering.stand import Stand
from kedge_convert.prepare.graph import trace

__all__ = ["ALWAYS", "INT16X8", "TF2ONNX", "TFLITE", "Lowered", "Rule", "lower"]

Rule = Callable[[Any], Any]

# Better in every format: kernels, delegates and the preparation of weights know the plain layer.
ALWAYS: tuple[Rule, ...] = (depthwise,)
# What TensorFlow's converter writes in numbers that no range holds.
TFLITE: tuple[Rule, ...] = (*ALWAYS, exponential)
# What TFLite's quantiser has no 16-bit form of (litert/kernels: the registered types).
INT16X8: tuple[Rule, ...] = (*TFLITE, activation, elementwise, prelu, layer_norm)
# What tf2onnx leaves as it found it: Erfc, and the compiled function of a grouped convolution.
TF2ONNX: tuple[Rule, ...] = (*ALWAYS, gelu, groups)


@dataclass(frozen=True)
class Lowered:
    """The rewritten model, or the very same one.

    `notes`: a line for each kind of layer that became several operators.
    """

    model: Any
    notes: tuple[str, ...] = ()


def lower(model: Any, rules: Sequence[Rule] = ALWAYS) -> Lowered:
    """Return a model of the same function in which no rule finds anything to replace."""
    graph = trace(model)
    stands: dict[int, Any] = {}  # by the layer's id: a shared layer stays shared
    kinds: Counter[str] = Counter()
    nodes = []
    for node in graph.nodes:
        found = _remembered(stands, rules, node.layer)
        kinds.update([_kind(node.layer)] if found and not _first(ALWAYS, node.layer) else [])
        nodes.append(replace(node, layer=found) if found else node)
    if not any(stands.values()):
        return Lowered(model)
    notes = tuple(f"{kind} written out in plainer operators ({n}x)" for kind, n in kinds.items())
    return Lowered(graph.with_nodes(nodes).build(), notes)


def _remembered(stands: dict[int, Any], rules: Sequence[Rule], layer: Any) -> Any:
    if id(layer) not in stands:
        stands[id(layer)] = _first(rules, layer)
    return stands[id(layer)]


def _first(rules: Sequence[Rule], layer: Any) -> Any:
    """Return the layer that the first rule which knows `layer` puts in its place, or None."""
    found = (rule(layer) for rule in rules)
    stand = next((each for each in found if each is not None), None)
    return stand.as_layer(layer.name) if isinstance(stand, Stand) else stand


def _kind(layer: Any) -> str:
    """Return what a person calls it: the activation's name, or the layer's class."""
    name = getattr(getattr(layer, "activation", None), "__name__", "linear")
    return type(layer).__name__ if name == "linear" else name
