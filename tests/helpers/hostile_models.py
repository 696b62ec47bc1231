"""Models that state what isn't so, made from the tiny ones: one of each kind that ended an engine.

`KINDS` is by format: name -> (change, what the refusal says).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Kinds = dict[str, tuple[Callable[[Any], None], str]]


def changed(form: str, content: bytes, change: Callable[[Any], None]) -> bytes:
    """Return a file after a change to its ModelT or its ModelProto."""
    if form == "onnx":
        import onnx

        proto = onnx.load_from_string(content)
        change(proto.graph)
        return bytes(proto.SerializeToString())
    from ai_edge_litert import schema_py_generated as schema

    from fuzz.tflite_mutants import packed

    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    change(model)
    return packed(model)


def _operator(index: int, **fields: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for name, value in fields.items():
            setattr(model.subgraphs[0].operators[index], name, value)

    return change


def _option(index: int, **fields: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for name, value in fields.items():
            setattr(model.subgraphs[0].operators[index].builtinOptions, name, value)

    return change


def _tensor(index: int, **fields: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for name, value in fields.items():
            setattr(model.subgraphs[0].tensors[index], name, value)

    return change


def _numbers(index: int, *values: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        tensor = model.subgraphs[0].tensors[index]
        model.buffers[tensor.buffer].data = np.array(values, np.int32).view(np.uint8)

    return change


def _code(index: int, **fields: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for name, value in fields.items():
            setattr(model.operatorCodes[index], name, value)

    return change


def _swapped(model: Any) -> None:
    operators = model.subgraphs[0].operators
    operators[0], operators[1] = operators[1], operators[0]


def _rename(model: Any, index: int, code: int, operands: list[int]) -> Any:
    """Let an operator be of another kind, in its first version, and return its subgraph."""
    operator = model.subgraphs[0].operators[index]
    kind = model.operatorCodes[operator.opcodeIndex]
    kind.builtinCode = kind.deprecatedBuiltinCode = code
    kind.version, operator.inputs = 1, operands
    return model.subgraphs[0]


def _depthwise(model: Any) -> None:
    from ai_edge_litert import schema_py_generated as schema

    graph = _rename(model, 0, 4, [0, 4])
    options = schema.DepthwiseConv2DOptionsT()
    options.padding, options.strideW, options.strideH, options.depthMultiplier = 1, 2, 2, 4
    graph.operators[0].builtinOptions, graph.operators[0].builtinOptionsType = options, 2
    graph.tensors[4].shape, graph.tensors[5].shape = [1, 3, 3, 12], [1, 7, 7, 12]
    graph.tensors[4].quantization.scale, graph.tensors[4].quantization.zeroPoint = [0.1], [0]


def _softmax(model: Any) -> None:
    from ai_edge_litert import schema_py_generated as schema

    graph = _rename(model, 2, 25, [6])
    graph.operators[2].builtinOptions = schema.SoftmaxOptionsT()
    graph.operators[2].builtinOptions.beta = float("-inf")
    graph.operators[2].builtinOptionsType = 9


def _shapeless(model: Any) -> None:
    """Let the mean be a RESHAPE, whose new shape is left out."""
    operator = _rename(model, 1, 22, [5, -1]).operators[1]
    operator.builtinOptions, operator.builtinOptionsType = None, 0


def _consistent_giant(model: Any) -> None:
    """State an input of a gigabyte, and everything behind it to match."""
    tensors = model.subgraphs[0].tensors
    tensors[0].shape = [1, 16, 20_000_001, 3]
    tensors[5].shape = [1, 7, 10_000_000, 4]


def _sparse(model: Any) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model.subgraphs[0].tensors[2].sparsity = schema.SparsityParametersT()


# tiny.tflite: 0 image, 1 axes, 2 dense weights, 3 bias, 4 kernel, 5 conv, 6 mean, 7 logits.
TFLITE: Kinds = {
    "weights left out": (_operator(0, inputs=[0, -1, 3]), "operand 1 is left out"),
    "a new shape left out": (_shapeless, "operand 1 is left out"),
    "a depthwise convolution without bias": (_depthwise, "it has 2 operands"),
    "a softmax of infinity": (_softmax, "its option 0 is -inf"),
    "an operand that isn't there": (_operator(0, inputs=[0, 4, 99]), "reads tensor 99 of 8"),
    "an operand fewer": (_operator(1, inputs=[5]), "it has 1 operands"),
    "an operand more": (_operator(1, inputs=[5, 1, 1]), "it has 3 operands"),
    "the input itself left out": (_operator(2, inputs=[-1, 2, -1]), "operand 0 is left out"),
    "a result that is read too early": (_swapped, "isn't computed before it"),
    "its own result": (_operator(0, inputs=[5, 4, 3]), "isn't computed before it"),
    "a result written into weights": (_operator(0, outputs=[4]), "isn't free"),
    "no result": (_operator(0, outputs=[]), "gives 0 tensors"),
    "no options": (_operator(0, builtinOptions=None, builtinOptionsType=0), "options are of type"),
    "stride 0": (_option(0, strideW=0), "its stride is 0"),
    "a negative stride": (_option(0, strideH=-2), "its stride is -2"),
    "dilation 0": (_option(0, dilationWFactor=0), "its dilation is 0"),
    "an unknown padding": (_option(0, padding=9), "its padding is 9"),
    "an unknown activation": (_option(0, fusedActivationFunction=77), "activation is unknown"),
    "an axis that isn't there": (_numbers(1, 1, 9), "its axis is 9 of 4"),
    "an axis far below": (_numbers(1, 1, -1000), "its axis is -1000"),
    "axes of another type": (_tensor(1, type=0), "operand 1 is float32"),
    "a kernel of three dimensions": (_tensor(4, shape=[4, 9, 3]), "has 3 dimensions"),
    "a kernel of another depth": (_tensor(4, shape=[4, 3, 1, 9]), "depth 9 don't fit 3 channels"),
    "a kernel larger than its bytes": (_tensor(4, shape=[400, 3, 3, 3]), "bytes has"),
    "a kernel without a scale": (_tensor(4, quantization=None), "has no scale"),
    "a bias of another length": (_tensor(3, shape=[2, 2]), "has 4 scales along axis"),
    "a shape without bound": (_tensor(5, shape=[1, 7, 2**30, 4]), "takes too much memory"),
    "a giant that fits together": (_consistent_giant, "memory"),
    "a negative side": (_tensor(5, shape=[1, 7, -7, 4]), "the shape"),
    "another shape than computed": (_tensor(5, shape=[1, 9, 9, 4]), "the file says"),
    "a buffer that isn't there": (_tensor(4, buffer=1000), "lies in buffer 1000"),
    "weights in no buffer": (_tensor(4, buffer=0), "isn't computed before it"),
    "an unknown type": (_tensor(4, type=100), "type 100"),
    "a version of tomorrow": (_code(0, version=2000), "version is 2000"),
    "sparse weights": (_sparse, "sparse"),
}


def _inputs(index: int, *names: str) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        del graph.node[index].input[:]
        graph.node[index].input.extend(names)

    return change


def _external(graph: Any) -> None:
    graph.initializer[0].data_location = 1


def _dims(*dims: int) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        del graph.initializer[-1].dims[:]
        graph.initializer[-1].dims.extend(dims)

    return change


def _attribute(kind: str, name: str, value: Any) -> Callable[[Any], None]:
    """Put an operator in front that has an attribute."""

    def change(graph: Any) -> None:
        from onnx import helper

        (image,) = (each.name for each in graph.input)
        graph.node.insert(0, helper.make_node(kind, [image], ["before"], **{name: value}))
        graph.node[1].input[0] = "before"

    return change


def _conv(dims: tuple[int, ...], **attributes: Any) -> Callable[[Any], None]:
    """Put a convolution in front, of the image's last axis' eight rows as channels."""

    def change(graph: Any) -> None:
        from onnx import helper, numpy_helper

        (image,) = (each.name for each in graph.input)
        kernel = numpy_helper.from_array(np.ones(dims, np.float32), "kernel")
        graph.initializer.append(kernel)
        node = helper.make_node("Conv", [image, "kernel"], ["before"], **attributes)
        graph.node.insert(0, node)
        graph.node[1].input[0] = "before"

    return change


ONNX: Kinds = {
    "a name that isn't there": (_inputs(1, "nowhere", "weights"), "'nowhere', which isn't"),
    "an operand left out": (_inputs(1, "", "weights"), "operand 0 is missing"),
    "an operand fewer": (_inputs(1, "weights"), "it has 1 operands"),
    "weights in another file": (_external, "keeps (its )?weights in another file"),
    "weights of more than their bytes": (_dims(3, 4000), "numbers"),
    "weights of a negative side": (_dims(-3, -4), "the shape"),
    "an order that is none": (_attribute("Transpose", "perm", [0, 1, 2, 9]), "its order is"),
    "a window of nothing": (_attribute("MaxPool", "kernel_shape", [0, 0]), "kernel"),
    "a kernel without a window": (_attribute("MaxPool", "strides", [1, 1]), "its kernel is"),
    "groups that divide nothing": (_conv((4, 1, 1, 1), group=3), "don't make 3 groups"),
    "no group": (_conv((4, 8, 1, 1), group=0), "don't make 0 groups"),
    "stride 0": (_conv((4, 8, 1, 1), strides=[0, 1]), "strides"),
    "negative pads": (_conv((4, 8, 1, 1), pads=[0, -5, 0, 0]), "its pads are"),
    "a kernel of another depth": (_conv((4, 5, 1, 1)), "don't fit 8 channels"),
    "a kernel of two dimensions": (_conv((4, 8)), "weights"),
    "pads without bound": (_conv((4, 8, 1, 1), pads=[2**30] * 4), "its pads are"),
}

KINDS: dict[str, Kinds] = {"tflite": TFLITE, "onnx": ONNX}
