"""Compute the shapes that TFLite's recurrent operators give, and check their weights."""

from kedge_runtime.inspect.tflite_shapes import Shape, Shapes, Step, UnsoundError, in_words


def sequence_lstm(step: Step) -> Shapes:
    """[n, t, c] or [t, n, c] through gates whose weights are [units, c] and [units, outputs]."""
    a, b, c = step.shape()
    batch = b if step.number(3, "?") else a
    units, width = step.shape(4)[0], step.shape(8)[1]
    sizes: dict[int, Shape] = dict.fromkeys(range(1, 5), (units, c))
    sizes |= dict.fromkeys(range(5, 9), (units, width)) | dict.fromkeys(range(9, 16), (units,))
    sizes |= {16: (width, units), 17: (width,), 18: (batch, width), 19: (batch, units)}
    sizes |= dict.fromkeys(range(20, 24), (units,))
    for place, size in sizes.items():
        tensor = step.given(place)
        if tensor is not None and tensor.shape != size:
            raise UnsoundError(
                f"operand {place} is {in_words(tensor.shape)} instead of {in_words(size)}"
            )
    if step.given(16) is None and units != width:
        raise UnsoundError(f"it gives {width} of {units} units without a projection")
    return [(a, b, width)]


def sequence_rnn(step: Step) -> Shapes:
    """[n, t, c] or [t, n, c] through weights of [units, c]."""
    a, b, c = step.shape()
    units = step.shape(1)[0]
    batch = b if step.number(0, "?") else a
    wanted = [(units, c), (units, units), (units,), (batch, units)]
    if [step.shape(place) for place in range(1, 5)] != wanted:
        raise UnsoundError("its weights don't fit each other")
    return [(a, b, units)]
