"""Find out how the images were prepared that a model was trained on.

A model answers images whose classes are known under every known preprocessing; the one that it was
trained with is right most often.
"""

from kedge_runtime.fitting.finding import IMAGES, Asked, Finding, better_input, true_outputs

__all__ = ["IMAGES", "Asked", "Finding", "better_input", "true_outputs"]
