"""Delegates: one grammar, a real one made by the C compiler, and each failure with its cause."""

import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest

from kedge_runtime.artefact.content import read_content
from kedge_runtime.engines.choice import EDGETPU_LIBRARY, EngineOptions, open_engine
from kedge_runtime.engines.litert import Delegate, parse_delegate
from kedge_runtime.errors import EngineError, UsageError
from kedge_runtime.output import quiet

pytest.importorskip("ai_edge_litert")

TINY = Path(__file__).parent / "models" / "tiny.tflite"


@pytest.mark.parametrize(
    ("text", "library", "options"),
    [
        ("edgetpu", EDGETPU_LIBRARY, {}),
        ("edgetpu:usb", EDGETPU_LIBRARY, {"device": "usb"}),
        ("edgetpu:pci", EDGETPU_LIBRARY, {"device": "pci"}),
        ("edgetpu:0", EDGETPU_LIBRARY, {"device": ":0"}),
        ("edgetpu:12", EDGETPU_LIBRARY, {"device": ":12"}),
        ("libarmnnDelegate.so", "libarmnnDelegate.so", {}),
        ("/opt/lib/edgetpu/delegate.so", "/opt/lib/edgetpu/delegate.so", {}),
        ("edgetpu.dll", "edgetpu.dll", {}),
    ],
)
def test_the_grammar(text: str, library: str, options: dict[str, str]) -> None:
    found = parse_delegate(text)
    assert (found.library, found.options) == (library, options)


@pytest.mark.parametrize(
    "text", ["edgetpu:", "edgetpu:tpu", "edgetpu:-1", "edgetpu:usb:1", "edgetpux"]
)
def test_a_device_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"an Edge TPU is edgetpu, edgetpu:usb, :pci or :N$"):
        parse_delegate(text)


def _open(delegate: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_engine(read_content(TINY), EngineOptions(delegate=str(delegate)))


def test_a_missing_edge_tpu_library_names_its_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kedge_runtime.engines.litert.EDGETPU_LIBRARY", "libedgetpu.so.0")
    with pytest.raises(EngineError, match=r"libedgetpu\.so\.0.*: .*apt install libedgetpu1-std"):
        _open("edgetpu:usb")


def test_a_missing_library_says_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"none\.so.*give edgetpu\[:usb\|pci\|N\] or the path"):
        _open(tmp_path / "none.so")


def test_a_file_that_is_no_library_is_refused() -> None:
    with pytest.raises(EngineError, match="the delegate's library can't be loaded"):
        _open(TINY)


# A delegate that takes no node: it writes its options to the file beside it, and refuses `:9`.
SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { void* data; int (*prepare)(void*, void*); void* others[16]; } Delegate;

static int prepare(void* context, void* delegate) { return 0; }

Delegate* tflite_plugin_create_delegate(
    char** keys, char** values, size_t count, void (*report)(const char*)) {
  for (size_t i = 0; i < count; i++)
    if (strcmp(values[i], ":9") == 0) { report("no device\\n number nine"); return NULL; }
  FILE* file = fopen(LOG, "w");
  for (size_t i = 0; i < count; i++) fprintf(file, "%s=%s\\n", keys[i], values[i]);
  fclose(file);
  Delegate* delegate = calloc(1, sizeof(Delegate));
  delegate->prepare = prepare;
  return delegate;
}

void tflite_plugin_destroy_delegate(Delegate* delegate) { free(delegate); }
"""


def _compile(source: str, library: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make a delegate with")
    code, log = library.with_suffix(".c"), library.with_suffix(".log")
    code.write_text(source)
    command = [compiler, "-shared", "-fPIC", f'-DLOG="{log}"', "-o", str(library), str(code)]
    subprocess.run(command, check=True)
    return library


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _compile(SOURCE, tmp_path_factory.mktemp("delegate") / "delegate.so")


def _as_edgetpu(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kedge_runtime.engines.litert.EDGETPU_LIBRARY", str(library))


def test_a_model_runs_through_a_delegate_with_its_options(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_edgetpu(library, monkeypatch)
    with quiet():
        plain = open_engine(read_content(TINY))
        engine = open_engine(read_content(TINY), EngineOptions(delegate="edgetpu:usb"))
        tensor = np.full(engine.input_shape, 90, np.int8)
        assert np.abs(engine.run(tensor).astype(int) - plain.run(tensor)).max() <= 1
    assert library.with_suffix(".log").read_text() == "device=usb\n"


def test_any_library_is_a_delegate(library: Path) -> None:
    library.with_suffix(".log").write_text("before")
    with quiet():
        engine = open_engine(read_content(TINY), EngineOptions(delegate=str(library)))
        engine.warm_up()
    assert library.with_suffix(".log").read_text() == ""


def test_a_delegate_without_its_device_tells_its_reason(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_edgetpu(library, monkeypatch)
    with pytest.raises(EngineError, match="finds no device it can use: no device number nine; is"):
        _open("edgetpu:9")


def test_a_library_that_is_no_delegate_is_refused(tmp_path: Path) -> None:
    plain = _compile("int nothing(void) { return 0; }", tmp_path / "plain.so")
    with pytest.raises(EngineError, match="no LiteRT delegate: it has no tflite_plugin_create"):
        _open(plain)


COMPILED = [
    "deeplab_mobilenet_edgetpu_slim_cityscapes_quant_edgetpu.tflite",
    "mobilenet_v1_0.25_128_quant_edgetpu.tflite",
    "mobilenet_v1_0.5_160_quant_edgetpu.tflite",
    "movenet_single_pose_lightning_ptq_edgetpu.tflite",
]


@pytest.mark.parametrize("name", COMPILED)
def test_a_file_compiled_for_the_edge_tpu_asks_for_the_delegate(shared: Path, name: str) -> None:
    path = shared / "data" / "edgetpu" / name
    with quiet(), pytest.raises(EngineError) as caught:
        open_engine(read_content(path))
    assert str(caught.value) == (
        f"{path}: compiled for the Edge TPU, which the CPU can't run: give --delegate edgetpu, "
        "or run the file it was compiled from"
    )


def test_a_delegate_is_a_record() -> None:
    assert parse_delegate("x.so") == Delegate("x.so")
