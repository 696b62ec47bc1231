"""One node on its operands, as the rules of an import see it.

ONNX's images are [n, c, h, w] and Keras's [n, h, w, c]. So a value is held in some order of its
axes, and a Transpose changes only what that order is called.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kedge_convert.onnx_import.reading import OnnxOperation
from kedge_convert.program.calls import OperatorImportError
from kedge_convert.program.reading import Array
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats

IMAGES = (0, 2, 3, 1)  # the axes of ONNX's images in Keras's order


@dataclass(frozen=True)
class HeldValue:
    """A value as Keras holds it.

    `symbol`: a Keras tensor, [n, ...]; `order`: the node's axis of each of its axes, the batch
    first. `positive`: whether no number is below zero.
    """

    symbol: Any
    order: tuple[int, ...]
    positive: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape as ONNX has it, of one image."""
        sizes = (1, *self.symbol.shape[1:])
        return tuple(sizes[self.order.index(axis)] for axis in range(len(sizes)))

    def axis(self, axis: int) -> int:
        """Return where an axis of ONNX's is held; it may count from the end."""
        return self.order.index(axis % len(self.order))

    def ordered(self, order: Sequence[int]) -> Any:
        """Return the Keras tensor with its axes in an order."""
        if tuple(order) == self.order:
            return self.symbol
        moves = [self.order.index(axis) for axis in order]
        long = [move for move in moves if self.symbol.shape[move] != 1]
        layers = require("keras").layers
        if long == sorted(long):  # only axes of one element move
            return layers.Reshape([self.shape[axis] for axis in order[1:]])(self.symbol)
        return layers.Permute(moves[1:])(self.symbol)

    @property
    def plain(self) -> Any:
        """The Keras tensor with its axes in ONNX's order."""
        return self.ordered(range(len(self.order)))

    def with_symbol(self, symbol: Any, *, positive: bool = False) -> "HeldValue":
        """Return another value in the same order."""
        return replace(self, symbol=symbol, positive=positive)


def plain(symbol: Any) -> HeldValue:
    """Return a value that is held as ONNX has it."""
    return HeldValue(symbol, tuple(range(len(symbol.shape))))


def images(symbol: Any) -> HeldValue:
    """Return images that are held as Keras has them."""
    return HeldValue(symbol, IMAGES)


Operand = HeldValue | Array | None


@dataclass(frozen=True)
class OnnxCall:
    """A node with its operands; `name`: of the layer that becomes of it."""

    operation: OnnxOperation
    name: str
    operands: Sequence[Operand]

    def refusal(self, reason: str = "") -> OperatorImportError:
        """Return the error that names the operator."""
        return OperatorImportError(f"{self.operation.kind} {reason}".strip())

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or `default`."""
        return self.operation.attributes.get(name, default)

    def value(self, index: int = 0) -> HeldValue:
        """Return an operand that depends on the image. Raises OperatorImportError."""
        operand = self._operand(index)
        if not isinstance(operand, HeldValue):
            raise self.refusal("of constants")
        return operand

    def constant(self, index: int) -> Array:
        """Return an operand that is constant. Raises OperatorImportError."""
        operand = self._operand(index)
        if not isinstance(operand, np.ndarray):
            raise self.refusal("whose parameters are computed")
        return operand

    def bias(self, index: int, outputs: int) -> Floats:
        """Return a constant bias, zeros where there is none. Raises OperatorImportError."""
        bias = np.zeros(1) if self._operand(index) is None else self.constant(index)
        return np.broadcast_to(bias.reshape(-1), outputs).astype(np.float32)

    def stated(self, name: str, index: int) -> Array | None:
        """Return a list that is an attribute in older files and an operand in newer ones."""
        if name in self.operation.attributes:
            return np.asarray(self.operation.attributes[name])
        return None if self._operand(index) is None else self.constant(index)

    def images(self, index: int = 0) -> Any:
        """Return an operand of four axes as Keras's images. Raises OperatorImportError."""
        value = self.value(index)
        if len(value.order) != len(IMAGES):
            raise self.refusal(f"of {len(value.order)} axes")
        return value.ordered(IMAGES)

    def axes(self, numbers: Any, rank: int) -> list[int]:
        """Return axes from 0 on. Raises OperatorImportError where the batch is among them."""
        axes = sorted(int(each) % rank for each in np.atleast_1d(numbers))
        if 0 in axes:
            raise self.refusal("over the batch")
        return axes

    def _operand(self, index: int) -> Operand:
        return self.operands[index] if index < len(self.operands) else None


OnnxRule = Callable[[OnnxCall], HeldValue | list[HeldValue]]
