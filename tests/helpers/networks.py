"""Networks written as records, for rules that no file at hand shows."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.modelfile.network import Network, Operator, Scales, Value

ONE_SCALE = Scales(1, 0.5, 0.5)


@dataclass
class Builder:
    """Adds values and operators one by one; the last output is the network's."""

    form: str = "tflite"
    values: list[Value] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)

    def tensor(self, *shape: int, dtype: str = "int8") -> int:
        """Add an activation; return its place."""
        self.values.append(Value(f"v{len(self.values)}", shape, dtype, ONE_SCALE))
        return len(self.values) - 1

    def constant(self, numbers: NDArray[np.generic], scales: int = 1) -> int:
        """Add a constant with so many scales; return its place."""
        data = memoryview(numbers.tobytes())
        quantised = Scales(scales, 0.1, 0.2) if numbers.dtype == np.int8 else None
        name = f"c{len(self.values)}"
        self.values.append(Value(name, numbers.shape, numbers.dtype.name, quantised, data))
        return len(self.values) - 1

    def run(self, kind: str, inputs: Sequence[int], output: int, **options: int) -> int:
        """Add an operator; return the place of what it writes."""
        self.operators.append(Operator(kind, 1, tuple(inputs), (output,), options))
        return output

    def build(self, *inputs: int) -> Network:
        """Return the network."""
        outputs = self.operators[-1].outputs
        return Network(self.form, tuple(self.values), tuple(self.operators), inputs, outputs)
