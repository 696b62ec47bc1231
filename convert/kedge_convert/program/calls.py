"""One operator on its operands, as the rules of an import see it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from kedge_convert.program.reading import Array
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.errors import one_line

Shape = tuple[int, ...]


class OperatorImportError(Exception):
    """An operator that can't be imported; its text names the operator and says why."""


@dataclass(frozen=True)
class OperatorImport:
    """An operator with its operands: Keras tensors [n, ...], numpy arrays, or None.

    An operand that no rule needs, such as a computed shape, is None as well. `shapes`: of all
    outputs, without the batch.
    """

    kind: str
    name: str
    options: Any
    operands: Sequence[Any]
    shapes: tuple[Shape, ...]

    @property
    def shape(self) -> Shape:
        """The first output's shape, without the batch."""
        return self.shapes[0]

    @property
    def activation(self) -> int:
        """The number of the fused activation (schema.fbs: ActivationFunctionType)."""
        return int(getattr(self.options, "fusedActivationFunction", 0))

    def refusal(self, reason: str = "") -> OperatorImportError:
        """Return the error that names the operator."""
        return OperatorImportError(f"{self.kind} {reason}".strip())

    def value(self, index: int = 0) -> Any:
        """Return an operand that depends on the image. Raises OperatorImportError."""
        operand = self.operands[index] if index < len(self.operands) else None
        if not is_value(operand):
            raise self.refusal("of constants")
        return operand

    def constant(self, index: int) -> Array:
        """Return an operand that is constant. Raises OperatorImportError."""
        operand = self.operands[index] if index < len(self.operands) else None
        if not isinstance(operand, np.ndarray):
            raise self.refusal("whose parameters are computed")
        return operand

    def bias(self, index: int, outputs: int) -> Floats:
        """Return a constant bias, zeros where there is none. Raises OperatorImportError."""
        if index >= len(self.operands) or self.operands[index] is None:
            return np.zeros(outputs, np.float32)
        return self.constant(index).reshape(outputs)

    def axes(self, numbers: Any, rank: int) -> list[int]:
        """Return axes from 0 on. Raises OperatorImportError where the batch is among them."""
        axes = sorted(int(each) % rank for each in np.atleast_1d(numbers))
        if 0 in axes:
            raise self.refusal("over the batch")
        return axes


class RefusingCall(Protocol):
    """An operator on its operands, of either format."""

    def refusal(self, reason: str = "") -> OperatorImportError:
        """Return the error that names the operator."""


AnyCall = TypeVar("AnyCall", bound=RefusingCall)
Made = TypeVar("Made")


def made_by(rule: Callable[[AnyCall], Made], call: AnyCall) -> Made:
    """Return what a rule makes of an operator. Raises OperatorImportError."""
    try:
        return rule(call)
    except OperatorImportError:
        raise
    # Keras raises whatever its layers do with sizes that they don't take.
    except Exception as error:
        raise call.refusal(f"that Keras lacks ({one_line(error, 100)})") from error


Rule = Callable[[OperatorImport], Any]


def is_value(operand: Any) -> bool:
    """Whether an operand depends on the image."""
    return isinstance(operand, require("keras").KerasTensor)
