"""A live model of tf_keras as its graph, for what no model of Keras 3 can hold."""

from typing import Any

from kedge_convert.sources import frozen
from kedge_convert.toolkit import require


def traced(original: Any) -> Any:
    """Return the Keras 3 model around the graph of a tf_keras model of one input and one output."""
    tf = require("tensorflow")
    module = "tensorflow.python.framework.convert_to_constants"
    shape = original.inputs[0].shape
    run = tf.function(lambda images: original(images, training=False), autograph=False)
    concrete = run.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    flat = require(module).convert_variables_to_constants_v2(concrete)
    definition = flat.graph.as_graph_def()
    graph = frozen.Graph(definition, flat.inputs[0].name, flat.outputs[0].name)
    return frozen.as_model(graph, tuple(shape))
