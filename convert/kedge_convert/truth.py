"""The true classes of pictures: the runtime's own reader, which a device uses too."""

from kedge_runtime.truth import Truth, read_truth

__all__ = ["Truth", "read_truth"]
