"""Is an exported file what it claims to be? Checked on its structure, then by running it once.

Toolkits end without an error and leave the weights out, ask for constants as inputs, or write
operators that no engine has. `check` raises ConversionError for all that, whatever made the file.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.errors import ConversionError
from kedge_convert.formats.canonical import INPUT, OUTPUT
from kedge_convert.prepare.graph import Graph, trace
from kedge_convert.source import Source
from kedge_convert.structure.skeletons import READERS, Shape, Skeleton
from kedge_convert.toolkit import quiet
from kedge_runtime.content import ModelContent
from kedge_runtime.contract import Precision
from kedge_runtime.engines import open_engine
from kedge_runtime.errors import KedgeError, one_line
from kedge_runtime.inspect import read_network
from kedge_runtime.inspect.precision import precision_of
from kedge_runtime.preprocessing import Preprocessor, dequantise

# Of the numbers in the model's kernels, how many a file must hold at least: a kernel of zeros or a
# branch without effect may go, but not more.
LEAST_SHARE = 0.9

# What a file may be found to be: converters leave the weights of tiny layers float, and layers
# that have no integer kernels.
ALSO: dict[Precision, set[Precision]] = {
    "dynamic": {"dynamic", "mixed", "float32"},
    "int8": {"int8", "mixed"},
    "int16x8": {"int16x8", "int8", "mixed"},
    "mixed": {"int8", "mixed"},
}

NAMES = {"onnx": [INPUT, OUTPUT]}
"""What input and output are called, where that is promised."""


def check(form: str, content: bytes, source: Source) -> None:
    """Raise ConversionError when the exported file of `source` is no sound network.

    `form`: `tflite` or `onnx`. The file may be in any precision; what it answers isn't judged here
    (parity.py), only that it answers with finite numbers for each class.
    """
    try:
        skeleton = READERS[form](content)
    # A file that isn't one breaks its reader anywhere.
    except Exception as error:
        raise _fault(form, source, f"can't be read: {one_line(error)}") from error
    for find in FAULTS:
        if fault := find(skeleton, source):
            raise _fault(form, source, fault)
    ends = [*skeleton.inputs, *skeleton.outputs]
    if ends != NAMES.get(form, ends):
        raise _fault(form, source, f"calls its ends {ends}, not {NAMES[form]}")
    if fault := _run(form, content, source):
        raise _fault(form, source, fault)


def check_precision(content: ModelContent, precision: Precision, name: str) -> None:
    """Raise ConversionError when a file's tensors aren't of the precision that it is to be called.

    A toolkit that could not quantise may give the float model, which answers all too well.
    """
    found = precision_of(read_network(content))
    if found not in ALSO.get(precision, {precision}):
        raise ConversionError(
            f"{name}: the .{content.format} file that was made is {found} throughout"
        )


def probes(source: Source, count: int) -> list[NDArray[np.float32]]:
    """Return seeded noise as the model would get it from pictures: float32 [1, h, w, 3] each."""
    plan = Preprocessor(source.input)
    return [plan.look_up(noise) for noise in _noise(source, count)]


def _noise(source: Source, count: int) -> NDArray[np.uint8]:
    size = (source.input.geometry.height, source.input.geometry.width)
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)


def _fault(form: str, source: Source, fault: str) -> ConversionError:
    return ConversionError(f"{source.name}: the {form} file that was made {fault}")


def _empty(skeleton: Skeleton, source: Source) -> str:
    return "" if skeleton.operators else "has no operators"


def _foreign(skeleton: Skeleton, source: Source) -> str:
    names = ", ".join(sorted(set(skeleton.foreign)))
    return f"needs operators that engines lack: {names}" if names else ""


def _inputs(skeleton: Skeleton, source: Source) -> str:
    return _ends("input", skeleton.inputs, tuple(source.model.inputs[0].shape[1:]))


def _outputs(skeleton: Skeleton, source: Source) -> str:
    return _ends("output", skeleton.outputs, tuple(source.model.outputs[0].shape[1:]))


def _ends(kind: str, found: dict[str, Shape], wanted: tuple[int, ...]) -> str:
    if len(found) != 1:
        return f"has {len(found)} {kind}s, not one: {', '.join(found) or 'none'}"
    ((name, shape),) = found.items()
    if shape[1:] != wanted or shape[0] not in (1, None):
        return f"has the {kind} {name} of {shape}, not {(1, *wanted)}"
    return ""


def _weights(skeleton: Skeleton, source: Source) -> str:
    model = source.model
    if skeleton.numbers >= LEAST_SHARE * _count(model.weights):
        return ""
    # Before a file is called wrong: converters keep neither what has no part in the answer, such
    # as a branch of a nested model, nor equal constants twice.
    wanted = _count(_distinct(_needed(trace(model))))
    if skeleton.numbers >= LEAST_SHARE * wanted:
        return ""
    return f"holds {skeleton.numbers} numbers, the model's kernels have {wanted}: weights are lost"


def _count(weights: Iterable[Any]) -> int:
    """Return how many numbers kernels hold, those of a shared one once."""
    kernels = {id(each): each for each in weights if len(each.shape) > 1}
    return sum(math.prod(each.shape) for each in kernels.values())


def _needed(graph: Graph) -> Iterator[Any]:
    """Yield the weights of the layers that have a part in the output."""
    wanted = {graph.output}
    for node in reversed(graph.nodes):
        if node.output in wanted:
            wanted.update(node.inputs)
            yield from getattr(node.layer, "weights", ())


def _distinct(weights: Iterable[Any]) -> list[Any]:
    """Return one of each set of weights with equal numbers."""
    values = ((each, np.asarray(each)) for each in weights)
    found = {(value.shape, sha256(value.tobytes()).digest()): each for each, value in values}
    return list(found.values())


def _finite(skeleton: Skeleton, source: Source) -> str:
    return "" if skeleton.finite else "holds weights that are not finite (NaN or infinite)"


FAULTS: tuple[Callable[[Skeleton, Source], str], ...] = (
    _empty,
    _foreign,
    _inputs,
    _outputs,
    _weights,
    _finite,
)


def _run(form: str, content: bytes, source: Source) -> str:
    """Return what is wrong when the runtime's own engine runs it, or an empty string."""
    try:
        with quiet():
            engine = open_engine(ModelContent(Path(f"exported.{form}"), form, content))
            plan = Preprocessor(replace(source.input, tensor=engine.input))
            raw = engine.run(plan.look_up(_noise(source, 1)[0]))
    except KedgeError as error:
        return f"doesn't run: {error}"
    answers = dequantise(raw, engine.output)
    return "" if np.isfinite(answers).all() else "answers with numbers that are not finite"
