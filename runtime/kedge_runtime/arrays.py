"""Define the array types that kedge uses, named by their numbers.

At run time all are numpy's one class: numpy's own names for types take time to import.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Pixels = NDArray[np.uint8]
    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Indices = NDArray[np.int64]
    Flags = NDArray[np.bool_]
    Places = NDArray[np.intp]
else:
    Array = Pixels = Floats = Doubles = Indices = Flags = Places = np.ndarray
