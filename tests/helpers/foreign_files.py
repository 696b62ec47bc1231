"""What the tests of `kedge seal` share: what the tiny models must be told, and who judges them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from ai_edge_litert import interpreter as litert
from numpy.typing import NDArray

NAMES = "red\ngreen\nblue\ndark\n"
# What the tiny models need to be told.
WORDS = ("--preprocess", "image_dataset", "--normalisation", "tf", "--head", "logits")


def raw(path: Path, tensor: NDArray[Any]) -> NDArray[Any]:
    """Return what the libraries themselves give, as real numbers."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path))
        (name,) = (each.name for each in session.get_inputs())
        return np.asarray(session.run(None, {name: tensor})[0]).reshape(-1)
    interpreter = litert.Interpreter(str(path))
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    if scale := taken["quantization"][0]:
        limits = np.iinfo(taken["dtype"])
        steps = np.rint(tensor / scale) + taken["quantization"][1]
        tensor = steps.clip(limits.min, limits.max).astype(taken["dtype"])
    interpreter.set_tensor(taken["index"], tensor)
    interpreter.invoke()
    values = interpreter.get_tensor(given["index"]).astype(np.float32).reshape(-1)
    scale, zero = given["quantization"]
    return np.asarray((values - zero) * scale if scale else values)
