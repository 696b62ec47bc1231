"""An ONNX model that is written from the float TFLite program has its tensors and their ranges."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import families
from kedge_convert.export import onnx_static, tflite_converter, tflite_static
from kedge_convert.export.exported import EMPTY, ExportOptions, Limits, Range
from kedge_convert.quantise import onnx
from kedge_convert.spread import shared
from kedge_convert.toolkit import require


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_ranges_are_those_that_onnxruntime_sees(family: str, pictures: Path) -> None:
    source, options = families.source(family), ExportOptions(tuple(sorted(pictures.iterdir())[:8]))
    floats = onnx.floats(source)
    tensors = onnx.tensors(source, floats)
    graph = require("onnx").load_from_string(floats).graph
    assert len(tensors) > 0.5 * len(onnx_static.activations(graph))
    program = tflite_converter.ranges(source, options)
    own = onnx_static.minmax(floats, options.tensors(source))
    assert own.keys() >= tensors.keys()
    cut = {node.input[0] for node in graph.node if node.op_type in onnx_static.FUSED}
    for name, tensor in tensors.items():
        if name in cut:  # it gets the range of what it is cut to, as the engine computes it
            continue
        ours, theirs = program[tensor], own[name]
        size = theirs.high - theirs.low
        assert ours.low == pytest.approx(theirs.low, abs=1e-3 * size), name
        assert ours.high == pytest.approx(theirs.high, abs=1e-3 * size), name


@pytest.mark.parametrize("family", families.FAMILIES)
def test_only_the_others_are_looked_at(family: str, pictures: Path) -> None:
    source, options = families.source(family), ExportOptions(tuple(sorted(pictures.iterdir())[:2]))
    floats = onnx.floats(source)
    tensors = onnx.tensors(source, floats)
    own = onnx_static.minmax(floats, options.tensors(source))
    others = onnx_static.minmax(floats, options.tensors(source), tensors)
    assert others == {name: one for name, one in own.items() if name not in tensors}


def test_ranges_by_threads_are_those_of_all_images_in_turn(pictures: Path) -> None:
    source = families.source("vgg")
    floats = tflite_converter.float32(source)
    options = ExportOptions(tuple(sorted(pictures.iterdir())[:9]))
    found = tflite_static.minmax(floats, options.tensors(source))
    in_turn = tflite_static.observed(floats, options.tensors(source))
    assert found == Range.of_all(in_turn)


def test_a_part_of_zeros_alone_widens_no_range() -> None:
    parts: list[Limits] = [{"x": (0.0, 0.0)}, {"x": (0.0, EMPTY / 4)}, {"y": (0.0, 0.0)}]
    assert Range.of_parts(parts) == {"x": Range(0.0, EMPTY / 4), "y": Range(0.0, EMPTY)}


def test_threads_share_items_and_none_is_lost() -> None:
    taken = shared(range(1000))
    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(lambda _: list(taken()), range(4)))
    assert sorted(item for part in parts for item in part) == list(range(1000))
    assert list(taken()) == []
