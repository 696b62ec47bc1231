"""One operator on its operands, as the rules of the writer see it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kedge_convert.export.onnx_program.graph import PART, Array, GraphBuilder
from kedge_convert.export.onnx_program.layout import FIRST, IMAGE, INTO, LAST, Layout, axis_in
from kedge_convert.program.reading import Operation
from kedge_convert.toolkit import ConversionError

Shape = tuple[int, ...]


class ForeignOperatorError(ConversionError):
    """An operator that can't be written; its text names the operator and says why."""


@dataclass(frozen=True)
class Made:
    """A value that a rule made, in its layout."""

    name: str
    layout: Layout = LAST


class Tensors(Protocol):
    """The program's tensors by index, as far as they are written."""

    graph: GraphBuilder

    def name(self, index: int) -> str:
        """Return the name of the activation."""

    def shape(self, index: int) -> Shape:
        """Return the sizes in TFLite's order, batch included."""

    def kind(self, index: int) -> str:
        """Return the name of the type (schema.fbs: TensorType)."""

    def constant(self, index: int) -> Array | None:
        """Return the numbers in TFLite's order, or None for an activation."""

    def value(self, index: int, layout: Layout) -> str:
        """Return the name of the ONNX value in a layout, transposed if need be."""

    def is_in(self, index: int, layout: Layout) -> bool:
        """Whether an activation is there in a layout without another transpose."""

    def padding(self, index: int) -> tuple[int, Array] | None:
        """Return what an activation is padded with zeros from, and the widths, if it is that."""


@dataclass(frozen=True)
class OperatorCall:
    """An operator; operands are counted as in schema.fbs."""

    operation: Operation
    tensors: Tensors

    @property
    def kind(self) -> str:
        """The operator's name, as in schema.fbs."""
        return self.operation.kind

    @property
    def options(self) -> Any:
        """The schema's record of its options, or None."""
        return self.operation.options

    @property
    def graph(self) -> GraphBuilder:
        """What is written so far."""
        return self.tensors.graph

    @property
    def count(self) -> int:
        """The number of operands."""
        return len(self.operation.inputs)

    @property
    def shapes(self) -> list[Shape]:
        """The outputs' shapes in TFLite's order."""
        return [self.tensors.shape(index) for index in self.operation.outputs]

    @property
    def activation(self) -> int:
        """The number of the fused activation (schema.fbs: ActivationFunctionType)."""
        return int(getattr(self.options, "fusedActivationFunction", 0))

    def refusal(self, reason: str) -> ForeignOperatorError:
        """Return the error that names the operator."""
        return ForeignOperatorError(f"{self.kind} {reason}")

    def has(self, index: int) -> bool:
        """Whether there is such an operand."""
        return index < self.count and self.operation.inputs[index] >= 0

    def shape(self, index: int = 0) -> Shape:
        """Return an operand's shape in TFLite's order."""
        return self.tensors.shape(self.operation.inputs[index])

    def constant(self, index: int) -> Array:
        """Return an operand that is constant. Raises ForeignOperatorError."""
        values = self.tensors.constant(self.operation.inputs[index])
        if values is None:
            raise self.refusal("whose parameters are computed")
        return values

    def is_constant(self, index: int) -> bool:
        """Whether an operand is constant."""
        return self.tensors.constant(self.operation.inputs[index]) is not None

    def derived(self, index: int, use: str, values: Array) -> str:
        """Return the name of a constant made from a constant operand for a use."""
        own = self.tensors.name(self.operation.inputs[index])
        return self.graph.constant(f"{own}{PART}{use}", values)

    def is_in(self, layout: Layout, index: int = 0) -> bool:
        """Whether an operand is an activation that is there in a layout."""
        return self.tensors.is_in(self.operation.inputs[index], layout)

    def value(self, index: int = 0, layout: Layout = LAST) -> str:
        """Return the name of an operand in a layout; a lesser constant broadcasts as before."""
        tensor = self.operation.inputs[index]
        values = self.tensors.constant(tensor)
        if layout is LAST or values is None:
            return self.tensors.value(tensor, layout)
        if values.size == 1:
            return self.derived(index, "scalar", values.reshape(()))
        whole = values.reshape((1,) * (IMAGE - values.ndim) + values.shape)
        return self.derived(index, layout.value, whole.transpose(INTO[FIRST]))

    def layout(self) -> Layout:
        """Return the layout for an operator that takes its operands and gives its output alike."""
        activations = [i for i in range(self.count) if self.has(i) and not self.is_constant(i)]
        ranks = {len(shape) for shape in (*self.shapes, *map(self.shape, activations))}
        first = ranks == {IMAGE} and any(self.is_in(FIRST, i) for i in activations)
        return FIRST if first else LAST

    def axes(self, numbers: Any, layout: Layout, rank: int = 0) -> list[int]:
        """Return axes of the first operand's rank, or another, as they are in a layout."""
        size = rank or len(self.shape())
        return [axis_in(layout, int(each) % size) for each in np.atleast_1d(numbers)]

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Write a node of one output; return its name."""
        return self.nodes(kind, 1, inputs, **attributes)[0]

    def nodes(self, kind: str, count: int, inputs: Sequence[str], **attributes: Any) -> list[str]:
        """Write a node; return its outputs' names."""
        own = self.tensors.name(self.operation.outputs[0])
        base = f"{own}{PART}{kind}"
        names = [base] if count == 1 else [f"{base}.{number}" for number in range(count)]
        outputs = list(map(self.graph.free, names))
        self.graph.node(kind, inputs, outputs, **attributes)
        return outputs

    def number(self, value: float) -> str:
        """Return the name of a float32 constant without axes."""
        return self.graph.numbers(value, np.float32)

    def integers(self, values: Any) -> str:
        """Return the name of a constant of int64."""
        return self.graph.numbers(values)


Rule = Callable[[OperatorCall], Made | list[Made]]
