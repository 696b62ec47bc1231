"""Float ONNX files as other programs write them: single operators, and small networks as torch's.

torch's exporter writes images as [n, c, h, w], an open batch, pads in numbers, batch norms folded
or not, and the shape of a Flatten computed from the image's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats

IMAGE = (4, 8, 6)  # channels, height, width


@dataclass
class OnnxWriter:
    """Nodes and weights so far; weights are seeded. `batch`: of the input."""

    shape: tuple[int, ...] = IMAGE
    batch: int | str = "batch"
    opset: int = 17
    nodes: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))

    def node(self, kind: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or the names of several."""
        names = [f"/layer{len(self.nodes)}/{kind}_output_{i}" for i in range(outputs)]
        made = require("onnx").helper.make_node(kind, inputs, names, **attributes)
        self.nodes.append(made)
        return names[0] if outputs == 1 else names

    def weight(self, value: Any) -> str:
        """Add a weight; return its name."""
        name = f"weight{len(self.weights)}"
        self.weights.append(require("onnx").numpy_helper.from_array(np.asarray(value), name))
        return name

    def drawn(self, *shape: int, scale: float = 1.0) -> str:
        """Add a weight of drawn numbers; return its name."""
        return self.weight((self.rng.normal(size=shape) * scale).astype(np.float32))

    def integers(self, *numbers: int) -> str:
        """Add a list of int64; return its name."""
        return self.weight(np.array(numbers, np.int64))

    def conv(self, value: str, channels: tuple[int, int], size: int = 3, **attributes: Any) -> str:
        """Add a convolution as torch pads it, with a bias."""
        (inputs, outputs), pad = channels, size // 2
        inputs //= attributes.get("group", 1)
        attributes = {"pads": [pad] * 4, "kernel_shape": [size] * 2, **attributes}
        scale = (2 / (inputs * size * size)) ** 0.5
        kernel = self.drawn(outputs, inputs, size, size, scale=scale)
        return str(self.node("Conv", [value, kernel, self.drawn(outputs, scale=0.1)], **attributes))

    def norm(self, value: str, channels: int) -> str:
        """Add a batch norm."""
        positive = self.rng.uniform(0.5, 1.5, (2, channels)).astype(np.float32)
        names = [self.weight(positive[0]), self.drawn(channels, scale=0.1)]
        names += [self.drawn(channels, scale=0.1), self.weight(positive[1])]
        return str(self.node("BatchNormalization", [value, *names]))

    def flat(self, value: str) -> str:
        """Flatten as torch does it from the computed batch."""
        shape = self.node("Shape", [value])
        first = self.node("Gather", [shape, self.weight(np.array(0, np.int64))], axis=0)
        sizes = [self.node("Unsqueeze", [first, self.integers(0)]), self.integers(-1)]
        return str(self.node("Reshape", [value, self.node("Concat", sizes, axis=0)]))

    def file(self, output: str) -> bytes:
        """Return the file whose output is a value."""
        helper = require("onnx").helper
        ends = [
            helper.make_tensor_value_info("images", 1, [self.batch, *self.shape]),
            helper.make_tensor_value_info(output, 1, None),
        ]
        graph = helper.make_graph(self.nodes, "main_graph", ends[:1], ends[1:], self.weights)
        opsets = [helper.make_opsetid("", self.opset)]
        content: bytes = helper.make_model(
            graph, opset_imports=opsets, ir_version=8
        ).SerializeToString()
        return content


def mobile(writer: OnnxWriter, classes: int = 10) -> bytes:
    """Return a net of MobileNetV3's kind: inverted residuals, squeeze-excite, hard swish."""
    value = writer.node("HardSwish", [writer.conv("images", (3, 16), strides=[2, 2])])
    for stride in (1, 2):
        start, wide = value, 48
        value = writer.norm(writer.conv(value, (16, wide), 1), wide)
        value = writer.node(
            "Clip", [value, writer.weight(np.float32(0)), writer.weight(np.float32(6))]
        )
        value = writer.conv(value, (wide, wide), group=wide, strides=[stride, stride])
        value = writer.node("HardSwish", [writer.norm(value, wide)])
        gate = writer.conv(writer.node("GlobalAveragePool", [value]), (wide, 12), 1)
        gate = writer.conv(writer.node("Relu", [gate]), (12, wide), 1)
        gate = writer.node("HardSigmoid", [gate], alpha=1 / 6)
        value = writer.norm(writer.conv(writer.node("Mul", [value, gate]), (wide, 16), 1), 16)
        value = writer.node("Add", [value, start]) if stride == 1 else value
    value = writer.flat(writer.node("GlobalAveragePool", [value]))
    head = [writer.drawn(classes, 16), writer.drawn(classes, scale=0.1)]
    return writer.file(writer.node("Gemm", [value, *head], transB=1))


def residual(writer: OnnxWriter, classes: int = 10) -> bytes:
    """Return a net of ResNet's kind, its batch norms in place: a padded MaxPool, a bottleneck."""
    value = writer.norm(writer.conv("images", (3, 16), 7, strides=[2, 2]), 16)
    value = writer.node("Relu", [value])
    value = writer.node("MaxPool", [value], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for inputs, stride in ((16, 1), (32, 2)):
        beside = writer.norm(writer.conv(value, (inputs, 32), 1, strides=[stride, stride]), 32)
        value = writer.node("Relu", [writer.norm(writer.conv(value, (inputs, 8), 1), 8)])
        value = writer.conv(value, (8, 8), strides=[stride, stride], group=2)
        value = writer.node("Relu", [writer.norm(value, 8)])
        value = writer.norm(writer.conv(value, (8, 32), 1), 32)
        value = writer.node("Relu", [writer.node("Add", [value, beside])])
    value = writer.node("ReduceMean", [value], axes=[2, 3], keepdims=0)
    product = writer.node("MatMul", [value, writer.drawn(32, classes)])
    value = writer.node("Add", [writer.drawn(classes, scale=0.1), product])
    return writer.file(writer.node("Softmax", [value], axis=-1))


def values(*shape: int) -> Floats:
    """Return seeded numbers."""
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)
