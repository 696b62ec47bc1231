"""A live model of tf_keras as its graph, for what no model of Keras 3 can hold."""

from typing import Any

from kedge_convert.sources import frozen
from kedge_convert.sources.choice import chosen
from kedge_convert.sources.graph_model import Notes, graph_model
from kedge_convert.toolkit import require


def traced(original: Any, output: str | None, name: str) -> tuple[Any, Notes]:
    """Return the Keras 3 model around the graph of a tf_keras model, and what is to be said of it.

    `output`: the name or index of one of several outputs; `name` is for messages. Raises UsageError
    where it isn't told which one, and for a graph that no device runs.
    """
    tf = require("tensorflow")
    module = "tensorflow.python.framework.convert_to_constants"
    shape = original.inputs[0].shape
    run = tf.function(lambda images: original(images, training=False), autograph=False)
    concrete = run.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    flat = require(module).convert_variables_to_constants_v2(concrete)
    definition = flat.graph.as_graph_def()
    names = tuple(original.output_names)
    index = chosen(name, "output", names, output) if len(names) > 1 else 0
    graph = frozen.Graph(definition, flat.inputs[0].name, flat.outputs[index].name)
    return graph_model(graph, tuple(shape), "float32", name)
