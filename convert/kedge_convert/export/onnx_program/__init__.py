"""Write a float TFLite program as an ONNX graph, operator by operator.

Windows (convolutions, pools, resizes) want channels first. Each tensor of four axes stays in the
layout in which it was computed, and is transposed only for an operator that wants the other.
Values are called after the TFLite tensors whose numbers they hold.
"""
