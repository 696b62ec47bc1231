"""The grammar of targets."""

import pytest

from conftest import Run
from kedge_convert.targets import TARGETS, Target, parse_targets
from kedge_runtime.artefact.containers import FORMATS
from kedge_runtime.errors import UsageError


def test_all_is_every_target() -> None:
    assert parse_targets("all") == parse_targets(" all ") == TARGETS
    assert len(set(TARGETS)) == 8


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_target_reads_back_as_it_is_written(target: Target) -> None:
    assert parse_targets(str(target)) == (target,)
    assert target.format in FORMATS


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_file_name_says_model_precision_and_format(target: Target) -> None:
    name = target.file_name("mobilenet-0.25")
    assert name == f"mobilenet-0.25.{target.precision}.{target.format}"


def test_a_list_keeps_its_order_and_loses_its_doubles() -> None:
    text = "onnx:int8, tflite:float16,onnx:int8,"
    assert parse_targets(text) == (Target("onnx", "int8"), Target("tflite", "float16"))


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_only_integers_need_calibration(target: Target) -> None:
    assert target.needs_calibration == target.precision.startswith("int")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "''"),
        (",", "','"),
        ("tflite", "'tflite'"),
        ("tflite:int4", "'tflite:int4'"),
        ("onnx:dynamic", "'onnx:dynamic'"),
        ("TFLITE:int8", "'TFLITE:int8'"),
        ("tflite:int8,onyx:int8", "'onyx:int8'"),
        ("all,tflite:int8", "'all'"),
    ],
)
def test_what_is_no_target_is_named_with_all_that_are(text: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_targets(text)
    message = str(caught.value)
    assert message.startswith(f"--to: got {named}, allowed are all, ")
    assert all(str(target) in message for target in TARGETS)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("int8", "tflite:int8,onnx:int8"), ("INT8", "tflite:int8,onnx:int8")],
)
def test_half_a_target_is_asked_back(text: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"; did you mean {meant}\?$"):
        parse_targets(text)
    assert len(parse_targets(meant)) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        # Of two options the first one counts, too.
        ("--device coral --to tflite:float32 --to tflite:int8", "coral can't run tflite:float32"),
        ("--to onnx:int4 --to onnx:int8", "--to: got 'onnx:int4'"),
        ("--to=", "--to is empty: give a value, or leave it out"),
    ],
)
def test_each_target_that_is_asked_for_counts(kedge: Run, words: str, said: str) -> None:
    code, _, err = kedge("convert", "demo", *words.split())
    assert code == 2
    assert said in err
