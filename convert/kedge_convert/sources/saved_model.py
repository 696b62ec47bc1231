"""A SavedModel folder: what `model.export()` and TF-Hub give, with or without traces of Keras.

Its signature is frozen into one flat graph. Layers are gone: preparation leaves it as it is.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from kedge_convert.sources import frozen
from kedge_convert.sources.found import Facts, Found, Request
from kedge_convert.toolkit import quiet, require
from kedge_models import NORMALISATIONS
from kedge_runtime.errors import UsageError, counted, one_line

# Tried in this order; where there is but one signature or output, its name doesn't matter.
SIGNATURES = ("serving_default", "serve", "default", "image_classification")
OUTPUTS = ("logits", "default", "output_0")
# Beginnings of operations that keep state, look tables up, or read encoded pictures.
FOREIGN = (
    "Decode",
    "HashTable",
    "LookupTable",
    "ReadVariable",
    "VarHandle",
    "PyFunc",
    "EagerPyFunc",
)
HALF = 19  # DT_HALF of TensorFlow's types.proto
# TensorFlow's own line recommends an option of its loader.
_NO_VARIABLES = "there is no folder variables/ in it, which holds the weights: copy it all"


def holds(path: Path) -> bool:
    """Whether a path is a folder with a SavedModel in it."""
    return (path / "saved_model.pb").is_file()


def load(request: Request) -> Found:
    """Load a SavedModel. Raises UsageError for one that doesn't turn a picture into numbers."""
    path = Path(request.model)
    tf = require("tensorflow")
    try:
        with quiet():
            loaded = tf.saved_model.load(str(path))
            signature = _signature(path, loaded.signatures)
            output = _output(path, signature)
            graph = _frozen(path, signature, output)
            (taken,) = signature.structured_input_signature[1].values()
            floats = _from_floats(path, graph, taken.dtype.name)
            shape = tuple(taken.shape) if taken.shape.rank else (None, None, None, 3)
            model = frozen.as_model(floats, shape)
    except UsageError:
        raise
    except Exception as error:
        reason = one_line(error, 300) if (path / "variables").is_dir() else _NO_VARIABLES
        raise UsageError(f"{path}: TensorFlow can't load it: {reason}") from error
    raw = NORMALISATIONS["raw"] if taken.dtype.name == "uint8" else None
    return Found(path.resolve().name, model, Facts(normalisation=raw))


def _signature(path: Path, signatures: Any) -> Any:
    return signatures[_chosen(path, "signature", tuple(sorted(signatures)), SIGNATURES)]


def _output(path: Path, signature: Any) -> str:
    return _chosen(path, "output", tuple(sorted(signature.structured_outputs)), OUTPUTS)


def _chosen(path: Path, what: str, names: tuple[str, ...], preferred: tuple[str, ...]) -> str:
    if len(names) == 1:
        return names[0]
    if found := [name for name in preferred if name in names]:
        return found[0]
    if not names:
        raise UsageError(
            f"{path}: the SavedModel has no {what}: save it with model.export('folder'), or "
            "tf.saved_model.save(module, 'folder', signatures=module.function)"
        )
    raise UsageError(
        f"{path}: the SavedModel has the {what}s {', '.join(names)}: kedge takes one, or one that "
        f"is called {', '.join(preferred)}"
    )


def _frozen(path: Path, signature: Any, output: str) -> frozen.Graph:
    """Return the signature's graph from its one picture to `output`, variables made constants."""
    _refuse_changing(path, signature)
    module = "tensorflow.python.framework.convert_to_constants"
    flat = require(module).convert_variables_to_constants_v2(signature)
    if len(flat.inputs) != 1:
        names = ", ".join(frozen.node_name(tensor.name) for tensor in flat.inputs)
        raise UsageError(f"{path}: no classifier: its signature takes {names}, not one picture")
    answer = flat.outputs[sorted(signature.structured_outputs).index(output)]
    graph = frozen.Graph(flat.graph.as_graph_def(), flat.inputs[0].name, answer.name)
    # Not attr["T"] alone: asking a message's map for a key puts it in.
    nodes = graph.definition.node
    halves = [node.name for node in nodes if "T" in node.attr and node.attr["T"].type == HALF]
    if halves:
        raise UsageError(
            f"{path}: its graph computes in float16 ({counted(len(halves), 'operation')}, "
            f"{halves[0]} first): give the .keras file, or export it in float32"
        )
    foreign = sorted({node.op for node in graph.definition.node if node.op.startswith(FOREIGN)})
    if foreign:
        raise UsageError(
            f"{path}: its graph needs {', '.join(foreign)}, which no device has: "
            "save it from decoded pixels to numbers"
        )
    return graph


def _refuse_changing(path: Path, signature: Any) -> None:
    """Raise UsageError for a graph that writes variables, as it does to draw random numbers.

    Keras leaves augmentation switched on in what `model.export()` writes.
    """
    nodes = [
        node
        for function in signature.graph.as_graph_def().library.function
        for node in function.node_def
    ]
    if writers := sorted({node.name for node in nodes if node.op.startswith("Assign")}):
        raise UsageError(
            f"{path}: its graph changes with every picture ({', '.join(writers)}), as random "
            "augmentation does: export the model without those layers, or give its .keras file"
        )


def _from_floats(path: Path, graph: frozen.Graph, dtype: str) -> frozen.Graph:
    """Return the graph with a float32 input: one of bytes begins where these are cast."""
    if dtype == "float32":
        return graph
    readers = graph.readers(frozen.node_name(graph.picture))
    while [each.op for each in readers] == ["Identity"]:
        readers = graph.readers(readers[0].name)
    if dtype == "uint8" and [each.op for each in readers] == ["Cast"]:
        return replace(graph, picture=f"{readers[0].name}:0")
    raise UsageError(f"{path}: its picture is {dtype}; kedge takes float32, or uint8 cast to it")
