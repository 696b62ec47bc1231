"""Find out how the images were prepared that a model was trained on.

The model answers images whose classes are known under every known preprocessing; the one that it
was trained with is right most often.
"""

from kedge_convert.fitting.finding import Finding, better_input, true_outputs

__all__ = ["Finding", "better_input", "true_outputs"]
