"""The program's tensors as ONNX values: names, constants, and each activation's layouts."""

from collections.abc import Iterable
from typing import Any

from kedge_convert.export.onnx_graph import INPUT, OUTPUT
from kedge_convert.export.onnx_program.calls import ForeignOperatorError, Made, Shape
from kedge_convert.export.onnx_program.graph import PART, Array, GraphBuilder
from kedge_convert.export.onnx_program.layout import INTO, LAST, Layout
from kedge_convert.program.reading import Program


class WrittenTensors:
    """A program's tensors, as far as they are written."""

    def __init__(self, program: Program) -> None:
        """Start with the input and the constants. Raises ForeignOperatorError."""
        if len(program.inputs) != 1 or len(program.outputs) != 1:
            raise ForeignOperatorError("a program of several inputs or outputs")
        self.graph = GraphBuilder()
        self._tensors = program.tensors
        self._names = _unique(tensor.name for tensor in program.tensors)
        (self._input,), (self._output,) = program.inputs, program.outputs
        self._constants = {
            index: tensor.constant
            for index, tensor in enumerate(program.tensors)
            if tensor.constant is not None
        }
        self._values: dict[int, dict[Layout, str]] = {self._input: {LAST: INPUT}}
        self._makers = {index: each for each in program.operations for index in each.outputs}

    def name(self, index: int) -> str:
        """Return the name of a tensor, with a number where another has it."""
        return self._names[index]

    def shape(self, index: int) -> Shape:
        """Return the sizes in TFLite's order, batch included."""
        return self._tensors[index].shape

    def kind(self, index: int) -> str:
        """Return the name of the type (schema.fbs: TensorType)."""
        return self._tensors[index].kind

    def constant(self, index: int) -> Array | None:
        """Return the numbers in TFLite's order, or None for an activation."""
        return self._constants.get(index)

    def is_in(self, index: int, layout: Layout) -> bool:
        """Whether an activation is there in a layout without another transpose."""
        return layout in self._values.get(index, {})

    def value(self, index: int, layout: Layout) -> str:
        """Return the name of a value in a layout, transposed if need be."""
        values = self._constants.get(index)
        if values is not None:
            if layout is LAST:
                return self.graph.constant(self._names[index], values)
            return self.graph.constant(self._called(index, layout), values.transpose(INTO[layout]))
        names = self._values.get(index)
        if names is None:
            raise ForeignOperatorError(f"no operator gives {self._names[index]}")
        if layout not in names:
            name = self._called(index, layout)
            self.graph.node("Transpose", [names[layout.other]], [name], perm=INTO[layout])
            names[layout] = name
        return names[layout]

    def add(self, index: int, made: Made) -> None:
        """Take what a rule made, under the tensor's name unless it is another's already."""
        if made.name in self.graph.constants:
            self._constants[index] = self.graph.constants[made.name]
            return
        name, taken = made.name, any(made.name in each.values() for each in self._values.values())
        if not taken:
            name = self._first_name(index, made.layout)
            self.graph.rename(made.name, name)
        self._values[index] = {made.layout: name}

    def padding(self, index: int) -> tuple[int, Array] | None:
        """Return what an activation is padded with zeros from, and the widths, if it is that.

        Height and width alone.
        """
        maker = self._makers.get(index)
        if maker is None or maker.kind not in ("PAD", "PADV2"):
            return None
        widths, *others = (self._constants.get(each) for each in maker.inputs[1:])
        if widths is None or len(widths) != 4 or widths[[0, 3]].any():
            return None
        if any(each is None or each.any() for each in others):
            return None
        return maker.inputs[0], widths

    def finish(self) -> tuple[list[Any], dict[str, str]]:
        """Return the nodes that the output needs, and the ONNX values by the program's names."""
        name = self.value(self._output, LAST)
        if name != OUTPUT:
            self.graph.node("Identity", [name], [OUTPUT])
        nodes = self.graph.needed(OUTPUT)
        alive = {INPUT, *(name for node in nodes for name in node.output)}
        named = {
            self._tensors[index].name: next((each for each in names.values() if each in alive), "")
            for index, names in self._values.items()
        }
        return nodes, {name: value for name, value in named.items() if value}

    def ends(self) -> tuple[Shape, Shape]:
        """Return the shapes of input and output."""
        return self.shape(self._input), self.shape(self._output)

    def _first_name(self, index: int, layout: Layout) -> str:
        return OUTPUT if index == self._output and layout is LAST else self._names[index]

    def _called(self, index: int, layout: Layout) -> str:
        """Return the name of a value in the layout in which it was not computed."""
        if index == self._output and layout is LAST:
            return OUTPUT
        return f"{self._names[index]}{PART}{layout.value}"


def _unique(names: Iterable[str]) -> list[str]:
    """Return short names, the same one only once.

    A fused operator's tensor has the names of all that it was made from, up to a kilobyte: the
    first one stays. None holds what marks a part of a tensor.
    """
    taken, given = {INPUT, OUTPUT}, list[str]()
    for name in names:
        base = name.partition(";")[0].replace(PART, "/") or "value"
        count, free = 1, base
        while free in taken:
            count, free = count + 1, f"{base}.{count + 1}"
        taken.add(free)
        given.append(free)
    return given
