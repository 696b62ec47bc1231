"""The profiles of devices: data that is checked when it is read."""

import pytest

from kedge_convert.export.exported import PLAIN, Scheme
from kedge_convert.targets import TARGETS, parse_targets, scheme_for, targets_for
from kedge_models.devices import device, devices, parse
from kedge_runtime.errors import ContractError, UsageError

NAMES = (
    *("armv7", "coral", "ethos-u55-128", "ethos-u65-512", "frigate"),
    *("mediapipe", "pi-zero2", "pi4", "pi5", "x86", "x86-vnni"),
)
WHOLE = 'title = "A"\ntargets = ["tflite:int8"]\n[precisions]\ntflite = ["int8"]\n'


def test_the_devices_are_those_of_the_documentation() -> None:
    assert tuple(devices()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_conversion_can_make_what_a_device_asks_for(name: str) -> None:
    assert targets_for(device(name)) == parse_targets(",".join(device(name).targets))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("coral", Scheme("uint8", "uint8", per_channel_dense=False)),
        ("frigate", Scheme("uint8", "uint8")),
        ("mediapipe", Scheme("float32", "float32")),
        ("pi4", PLAIN),
        ("x86", Scheme(reduce_range=True)),
        ("x86-vnni", PLAIN),
    ],
)
def test_what_a_device_chooses(name: str, expected: Scheme) -> None:
    assert scheme_for(device(name)) == expected


def test_the_users_targets_go_before_the_devices() -> None:
    assert targets_for(device("pi5"), "onnx:float32") == parse_targets("onnx:float32")


def test_all_is_what_the_device_runs() -> None:
    assert targets_for(device("coral"), "all") == parse_targets("tflite:int8")
    assert targets_for(None) == targets_for(None, "all") == TARGETS


def test_a_target_that_a_device_cant_run_is_refused() -> None:
    with pytest.raises(UsageError, match="coral can't run onnx:int8, allowed are tflite:int8"):
        targets_for(device("coral"), "onnx:int8")


def test_an_unknown_device_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"called 'pi3': did you mean pi\d.* known are armv7, "):
        device("pi3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('title = "A"', "key 'targets' is missing"),
        (WHOLE.replace("tflite:int8", "onnx:int8"), "makes onnx:int8, which it can't run"),
        (WHOLE.replace('tflite = ["int8"]', 'tflite = ["int4"]'), "allowed are float32"),
        (WHOLE + 'caffe = ["int8"]', "format is 'caffe', known are tflite, onnx"),
        ('compiler = "vela"\n' + WHOLE, r"compiler vela and the table \[vela\] go together"),
        (
            WHOLE.replace("tflite", "onnx")
            + '[loader]\nkinds = ["softmax"]\nresizes = ["bilinear"]\nfit = "stretch"\n',
            r"a \[loader\] takes tflite files alone",
        ),
        (WHOLE + '[versions]\nnew = ["ADD"]\n', "version 'new' is no whole number"),
        ("cache = 1\n" + WHOLE, "unknown key 'cache'"),
        ("title", "devices/a.toml: "),
    ],
)
def test_a_bad_profile_is_refused(text: str, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        parse("a", text)


def test_a_profile_says_only_what_differs() -> None:
    found = parse("a", WHOLE)
    assert (found.batch, found.per_channel_dense, found.compiler) == (0, True, "none")
