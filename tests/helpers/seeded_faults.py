"""Faults that a conversion can have, each where it would truly arise.

`WEIGHTS` spoil the demo's weights on their way into TensorFlow's converter, `LOWERINGS` the model
that is exported in place of the user's, `TFLITE` what comes out of the converter, `ONNX` the graph
that tf2onnx gives, `FILES` the finished ONNX file, `CONTRACTS` what is sealed into a file. All pass
for a success where they arise.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.export import flatbuffer
from kedge_convert.toolkit import require
from kedge_runtime.artefact.contract import Contract, Label, Quantisation

Weights = dict[str, NDArray[np.float32]]
TINY = Path(__file__).parents[1] / "models"


@dataclass(frozen=True)
class Fault:
    """`change` returns the faulty thing, or changes what it gets and returns None.

    `instead`: the target whose file TensorFlow gives, where it is another one.
    """

    target: str
    change: Callable[[Any], Any]
    instead: str = ""


# ---- weights, by path: changed before the converter reads them


def _swapped_colours(weights: Weights) -> None:
    weights["conv1/kernel"] = weights["conv1/kernel"][:, :, ::-1]


def _transposed(weights: Weights) -> None:
    weights["conv_pw_9/kernel"] = weights["conv_pw_9/kernel"].transpose(0, 1, 3, 2)


def _constant(weights: Weights) -> None:
    weights["conv_preds/kernel"] = np.zeros_like(weights["conv_preds/kernel"])


def _unsettled_norms(weights: Weights) -> None:
    for name in weights:
        if name.endswith("moving_mean"):
            weights[name] = np.zeros_like(weights[name])
        if name.endswith("moving_variance"):
            weights[name] = np.ones_like(weights[name])


WEIGHTS = {
    "colours swapped": Fault("tflite:float32", _swapped_colours),
    "kernel transposed": Fault("tflite:dynamic", _transposed),
    "constant output": Fault("tflite:int8", _constant),
    "batch norms unsettled": Fault("tflite:float32", _unsettled_norms),
}


# ---- the model in plainer operators, which takes the place of the user's


def _flipped(model: Any) -> Any:
    keras = require("keras")
    return keras.Model(model.inputs, keras.ops.flip(model.outputs[0], axis=-1))


def _activated(model: Any) -> Any:
    keras = require("keras")
    return keras.Model(model.inputs, keras.ops.relu(model.outputs[0]))


LOWERINGS = {
    "classes flipped": Fault("tflite:float32", _flipped),
    "an activation too many": Fault("tflite:float32", _activated),
}


# ---- what TensorFlow's converter gives: bytes


def _model(change: Callable[[Any, Any], None]) -> Callable[[bytes], bytes]:
    """Return the change of a file that changes its objects: the model and its graph."""

    def changed(content: bytes) -> bytes:
        model = flatbuffer.unpack(content)
        change(model, model.subgraphs[0])
        return flatbuffer.pack(model)

    return changed


def _end(graph: Any, kind: str) -> Any:
    return graph.tensors[getattr(graph, kind)[0]]


def _quantised(kind: str, scale: float = 1.0, zero: int = 0) -> Callable[[bytes], bytes]:
    def change(model: Any, graph: Any) -> None:
        numbers = _end(graph, kind).quantization
        numbers.scale = np.asarray(numbers.scale, np.float32) * np.float32(scale)
        numbers.zeroPoint = np.asarray(numbers.zeroPoint, np.int64) + zero

    return _model(change)


def _custom(model: Any, graph: Any) -> None:
    code = model.operatorCodes[graph.operators[3].opcodeIndex]
    code.customCode = b"FlexErf"
    code.builtinCode = flatbuffer.schema().BuiltinOperator.CUSTOM
    code.deprecatedBuiltinCode = code.builtinCode


def _empty(model: Any, graph: Any) -> None:
    graph.operators = []


def _extra_output(model: Any, graph: Any) -> None:
    graph.outputs = np.append(graph.outputs, graph.operators[5].outputs[0]).astype(np.int32)


def _other_output(model: Any, graph: Any) -> None:
    graph.outputs = np.asarray(graph.operators[5].outputs, np.int32)


def _extra_input(model: Any, graph: Any) -> None:
    constant = next(i for op in graph.operators for i in op.inputs if i not in graph.inputs)
    model.buffers[graph.tensors[constant].buffer].data = None
    graph.inputs = np.append(graph.inputs, constant).astype(np.int32)


def _open_size(model: Any, graph: Any) -> None:
    _end(graph, "inputs").shapeSignature = np.array([1, -1, -1, 3], np.int32)


def _other_size(model: Any, graph: Any) -> None:
    _end(graph, "inputs").shape = np.array([1, 64, 64, 3], np.int32)
    _end(graph, "inputs").shapeSignature = None


def _values(
    change: Callable[[NDArray[Any]], NDArray[Any]], *shapes: tuple[int, ...]
) -> Callable[[bytes], bytes]:
    """Return the change of the constants of these shapes; of all large ones without."""

    def change_all(model: Any, graph: Any) -> None:
        kinds = {0: np.float32, 2: np.int32, 9: np.int8}  # schema.fbs: TensorType
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            if data is None or len(data) == 0 or tensor.type not in kinds:
                continue
            if tuple(tensor.shape) in shapes or (not shapes and len(data) > 1000):
                values = np.array(data, np.uint8).view(kinds[tensor.type]).reshape(tensor.shape)
                changed = np.ascontiguousarray(change(values).astype(values.dtype))
                model.buffers[tensor.buffer].data = changed.view(np.uint8).ravel()

    return _model(change_all)


def _one_nan(values: NDArray[Any]) -> NDArray[Any]:
    values[0, 0, 0, 3] = np.nan
    return values


def _shuffled(values: NDArray[Any]) -> NDArray[Any]:
    return np.random.default_rng(0).permutation(values.ravel()).reshape(values.shape)


# As TFLite has them: [out, h, w, in], a depthwise one [1, h, w, channels].
STEM, DEPTHWISE, POINTWISE = (8, 3, 3, 3), (1, 3, 3, 64), (128, 1, 1, 128)
HEAD, BIAS = (10, 1, 1, 256), (10,)


def _dropped(content: bytes) -> bytes:
    """TensorFlow's own fault: a Keras 3 model by its function alone, and it says nothing."""
    import keras
    import tensorflow as tf

    from kedge_models.demo import shapes

    model = keras.models.load_model(shapes.MODEL, compile=False)
    logits = keras.Model(model.inputs, model.get_layer("reshape_2").output)
    call = tf.function(lambda x: tf.reshape(logits(x), (1, 10)))
    concrete = call.get_concrete_function(tf.TensorSpec((1, 96, 96, 3)))
    dropped: bytes = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model).convert()
    return dropped


TFLITE = {
    "cut off": Fault("tflite:float32", lambda content: content[: len(content) // 2]),
    "last bytes missing": Fault("tflite:float32", lambda content: content[:-64]),
    "garbage": Fault("tflite:float32", lambda content: b"\x5a" * len(content)),
    "nothing": Fault("tflite:float32", lambda _: b""),
    "wrong magic": Fault("tflite:float32", lambda c: c[:4] + b"TFL9" + c[8:]),
    "another model's file": Fault("tflite:int8", lambda _: (TINY / "tiny.tflite").read_bytes()),
    "a file of another format": Fault(
        "tflite:float32", lambda _: (TINY / "tiny.onnx").read_bytes()
    ),
    "a float file for int8": Fault("tflite:int8", lambda c: c, "tflite:float32"),
    "an int8 file for float": Fault("tflite:float32", lambda c: c, "tflite:int8"),
    "weights dropped": Fault("tflite:float32", _dropped),
    "weights zero": Fault("tflite:float32", _values(np.zeros_like)),
    "a layer's weights zeroed": Fault("tflite:float32", _values(np.zeros_like, DEPTHWISE)),
    "a layer's weights zeroed, int8": Fault("tflite:int8", _values(np.zeros_like, DEPTHWISE)),
    "another training's weights": Fault("tflite:float32", _values(_shuffled)),
    "another training's weights, int8": Fault("tflite:int8", _values(_shuffled)),
    "kernel transposed": Fault("tflite:float32", _values(lambda w: w.T, POINTWISE)),
    "classes permuted": Fault("tflite:float32", _values(lambda w: np.roll(w, 1, 0), HEAD, BIAS)),
    "classes permuted, int8": Fault("tflite:int8", _values(lambda w: np.roll(w, 1, 0), HEAD)),
    "bias missing": Fault("tflite:float32", _values(np.zeros_like, BIAS)),
    "pixels scaled otherwise": Fault("tflite:float32", _values(lambda w: w / 2, STEM)),
    "NaN weights": Fault("tflite:float32", _values(lambda w: w * np.float32("nan"), HEAD)),
    "one NaN weight": Fault("tflite:float32", _values(_one_nan, POINTWISE)),
    "custom operator": Fault("tflite:float32", _model(_custom)),
    "empty graph": Fault("tflite:float32", _model(_empty)),
    "extra output": Fault("tflite:float32", _model(_extra_output)),
    "another layer's output": Fault("tflite:float32", _model(_other_output)),
    "constant as required input": Fault("tflite:float32", _model(_extra_input)),
    "open input size": Fault("tflite:float32", _model(_open_size)),
    "other input size": Fault("tflite:float32", _model(_other_size)),
    "wrong scale out": Fault("tflite:int8", _quantised("outputs", scale=3)),
    "wrong scale in": Fault("tflite:int8", _quantised("inputs", scale=3)),
    "wrong zero point in": Fault("tflite:int8", _quantised("inputs", zero=90)),
    "wrong zero point out": Fault("tflite:int8", _quantised("outputs", zero=90)),
}


# ---- what tf2onnx gives: a ModelProto


def _initializer(model: Any, least: int = 1) -> Any:
    return next(each for each in model.graph.initializer if np.prod(each.dims) >= least)


def _required(model: Any) -> None:
    import onnx

    weight = _initializer(model, 100)
    kind = onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
    model.graph.initializer.remove(weight)
    model.graph.input.append(kind)


def _no_nodes(model: Any) -> None:
    del model.graph.node[:]


def _stateful(model: Any) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    node.op_type, node.domain = "StatefulPartitionedCall", "ai.onnx.contrib"
    model.opset_import.add(domain="ai.onnx.contrib", version=1)


def _unknown(model: Any) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    node.op_type = "Erfc"


def _two_outputs(model: Any) -> None:
    import onnx

    made = onnx.helper.make_tensor_value_info(model.graph.node[2].output[0], 1, None)
    model.graph.output.append(made)


def _opened(model: Any) -> None:
    for axis in (1, 2):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "size"


def _elsewhere(model: Any) -> None:
    import onnx

    weight = _initializer(model, 100)
    weight.ClearField("raw_data")
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")


def _spoilt(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Any], None]:
    def spoil(model: Any) -> None:
        import onnx

        weight = max(model.graph.initializer, key=lambda each: int(np.prod(each.dims)))
        values = change(onnx.numpy_helper.to_array(weight).copy())
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))

    return spoil


def _no_bias(model: Any) -> None:
    [node.input.pop() for node in model.graph.node if len(node.input) == 3][:1]


def _future(model: Any) -> None:
    for each in model.opset_import:
        each.version = 99


ONNX = {
    "constant as required input": Fault("onnx:float32", _required),
    "empty graph": Fault("onnx:float32", _no_nodes),
    "operator of a foreign domain": Fault("onnx:float32", _stateful),
    "operator that doesn't exist": Fault("onnx:float32", _unknown),
    "extra output": Fault("onnx:float32", _two_outputs),
    "open input size": Fault("onnx:float32", _opened),
    "weights in a missing file": Fault("onnx:float32", _elsewhere),
    "NaN weights": Fault("onnx:float32", _spoilt(lambda w: w * np.float32("nan"))),
    "a weight's rows permuted": Fault("onnx:float32", _spoilt(lambda w: w[::-1].copy())),
    "biases missing": Fault("onnx:float32", _no_bias),
    "opset of the future": Fault("onnx:float32", _future),
}


# ---- the ONNX file as it is about to be sealed


def _proto(change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        import onnx

        model = onnx.load_from_string(content)
        change(model)
        return bytes(model.SerializeToString())

    return changed


def _renamed(kind: str) -> Callable[[Any], None]:
    def rename(model: Any) -> None:
        end = getattr(model.graph, kind)[0]
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = ["other" if name == end.name else name for name in names]
        end.name = "other"

    return rename


def _rolled(model: Any) -> None:
    """The last operator gives the classes in another order."""
    import onnx

    graph = model.graph
    name = graph.output[0].name
    last = next(node for node in graph.node if name in node.output)
    last.output[:] = ["before"]
    order = np.roll(np.arange(10), 1)
    graph.initializer.append(onnx.numpy_helper.from_array(order, "order"))
    graph.node.append(onnx.helper.make_node("Gather", ["before", "order"], [name], axis=1))


FILES = {
    "cut off": Fault("onnx:float32", lambda content: content[: len(content) // 2]),
    "garbage": Fault("onnx:float32", lambda content: b"\x5a" * len(content)),
    "nothing": Fault("onnx:float32", lambda _: b""),
    "another model's file": Fault("onnx:float32", lambda _: (TINY / "tiny.onnx").read_bytes()),
    "a file of another format": Fault(
        "onnx:float32", lambda _: (TINY / "tiny.tflite").read_bytes()
    ),
    "classes permuted": Fault("onnx:float32", _proto(_rolled)),
    "wrong input name": Fault("onnx:float32", _proto(_renamed("input"))),
    "wrong output name": Fault("onnx:float32", _proto(_renamed("output"))),
    "a layer's weights zeroed": Fault("onnx:float16", _proto(_spoilt(np.zeros_like))),
    "a layer's weights zeroed, int8": Fault("onnx:int8", _proto(_spoilt(np.zeros_like))),
}


# ---- what is sealed in


def _input(**changes: Any) -> Callable[[Contract], Contract]:
    return lambda contract: replace(contract, input=replace(contract.input, **changes))


def _normalised(**changes: Any) -> Callable[[Contract], Contract]:
    def change(contract: Contract) -> Contract:
        return _input(normalisation=replace(contract.input.normalisation, **changes))(contract)

    return change


def _geometry(**changes: Any) -> Callable[[Contract], Contract]:
    def change(contract: Contract) -> Contract:
        return _input(geometry=replace(contract.input.geometry, **changes))(contract)

    return change


def _output(**changes: Any) -> Callable[[Contract], Contract]:
    return lambda contract: replace(contract, output=replace(contract.output, **changes))


def _requantised(contract: Contract) -> Contract:
    tensor = replace(contract.output.tensor, quantisation=Quantisation(0.5, 3))
    return _output(tensor=tensor)(contract)


def _labels(change: Callable[[tuple[Label, ...]], tuple[Label, ...]]) -> Callable[[Any], Any]:
    return lambda contract: replace(contract, labels=change(contract.labels))


CONTRACTS = {
    "colour order": Fault("tflite:float32", _normalised(colour="bgr")),
    "scale of the pixels": Fault("tflite:float32", _normalised(divisor=255.0)),
    "crop": Fault("tflite:float32", _geometry(crop_fraction=1.0)),
    "resize": Fault("onnx:float32", _geometry(resize="nearest")),
    "a label too few": Fault("tflite:float32", _labels(lambda names: names[:-1])),
    "a label too many": Fault("tflite:float32", _labels(lambda names: (*names, names[0]))),
    "quantisation of the output": Fault("tflite:int8", _requantised),
}
