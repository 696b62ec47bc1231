"""A SavedModel folder: what `model.export()` and TF-Hub give, with or without traces of Keras.

Its signature is frozen into one flat graph. Layers are gone: preparation leaves it as it is.
"""

from pathlib import Path
from typing import Any

from kedge_convert.sources import frozen, still
from kedge_convert.sources.choice import chosen
from kedge_convert.sources.found import Facts, Found, Request
from kedge_convert.sources.graph_model import UNKNOWN, graph_model
from kedge_convert.sources.programs import GRAPH, VARIABLES, checked
from kedge_convert.toolkit import quiet, require
from kedge_models import NORMALISATIONS
from kedge_runtime.errors import UsageError, one_line

# Tried in this order; where there is but one signature or output, its name doesn't matter.
SIGNATURES = ("serving_default", "serve", "default", "image_classification")
OUTPUTS = ("logits", "default", "output_0")
# TensorFlow's own line recommends an option of its loader.
_NO_VARIABLES = "there is no folder variables/ in it, which holds the weights: copy it all"


def holds(path: Path) -> bool:
    """Whether a path is a folder with a SavedModel in it, or the saved_model.pb of one."""
    return (root(path) / GRAPH).is_file()


def load(request: Request) -> Found:
    """Load a SavedModel. Raises UsageError for one that does anything but turn an image into
    numbers."""
    path = root(Path(request.model))
    tf = require("tensorflow")
    try:
        with quiet(), checked(path) as folder:
            loaded = tf.saved_model.load(str(folder))
            signature = _signature(path, loaded.signatures, request.signature)
            names = tuple(sorted(signature.structured_outputs))
            index = chosen(str(path), "output", names, request.output, OUTPUTS)
            graph = _frozen(path, signature, index)
            (taken,) = signature.structured_input_signature[1].values()
            shape = tuple(taken.shape) if taken.shape.rank else UNKNOWN
            model, notes = graph_model(graph, shape, taken.dtype.name, str(path))
    except UsageError:
        raise
    except Exception as error:
        reason = one_line(error, 300) if (path / VARIABLES).is_dir() else _NO_VARIABLES
        raise UsageError(f"{path}: TensorFlow can't load it: {reason}") from error
    raw = NORMALISATIONS["raw"] if taken.dtype.name == "uint8" else None
    return Found(path.resolve().name, model, Facts(normalisation=raw), notes)


def root(path: Path) -> Path:
    """Return the folder of a SavedModel; its saved_model.pb means it, too."""
    return path.parent if path.name == GRAPH and path.is_file() else path


def _signature(path: Path, signatures: Any, asked: str | None) -> Any:
    if not signatures:
        raise UsageError(
            f"{path}: the SavedModel has no signature: save it with model.export('folder'), or "
            "tf.saved_model.save(module, 'folder', signatures=module.function)"
        )
    names = tuple(sorted(signatures))
    return signatures[names[chosen(str(path), "signature", names, asked, SIGNATURES)]]


def _frozen(path: Path, signature: Any, index: int) -> frozen.Graph:
    """Return the signature's graph from its one picture to the output of `index`,
    variables made constants."""
    captured = {inner.name for _, inner in signature.graph.captures}
    taken = [tensor.name for tensor in signature.inputs if tensor.name not in captured]
    if len(taken) != 1:
        names = ", ".join(sorted(map(frozen.node_name, taken)))
        raise UsageError(f"{path}: no classifier: its signature takes {names}, not one picture")
    if writers := sorted({node.name for node in still.writers(signature)}):
        if not still.draws(signature):
            raise UsageError(
                f"{path}: its graph writes variables with every picture ({', '.join(writers)}), as "
                "training does: export it as model(x, training=False)"
            )
        signature = still.still(signature)
    module = "tensorflow.python.framework.convert_to_constants"
    flat = require(module).convert_variables_to_constants_v2(signature)
    answer = flat.outputs[index]
    return frozen.Graph(flat.graph.as_graph_def(), flat.inputs[0].name, answer.name)
