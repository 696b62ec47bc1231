"""The end of a classifier: what its numbers are, and where its logits are."""

from kedge_convert.heads.ends import Head, check_answers, check_input, find

__all__ = ["Head", "check_answers", "check_input", "find"]
