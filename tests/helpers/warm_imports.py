"""What the fork server of `warm.py` has imported before it forks a worker."""

import importlib

from kedge_convert.toolkit import require
from kedge_convert.worker import worker

for name in ("tensorflow", "tf_keras", "tf2onnx", "onnxruntime"):
    require(name)
importlib.import_module("kedge_convert.pipeline")


def _ends_with_its_server(_: int) -> None:
    """The server is the worker's parent, and ends with the tests."""


vars(worker)["end_with"] = _ends_with_its_server
