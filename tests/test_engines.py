"""The engines as twins: one verb, the same answers, and every refusal in one line."""

import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Tensor
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.engines import choice
from kedge_runtime.engines.base import Engine, Port, single_ports
from kedge_runtime.engines.choice import (
    ENGINES,
    EngineOptions,
    how_to_install,
    numpy_gate,
    open_engine,
    version_gate,
)
from kedge_runtime.errors import EngineError, UsageError
from kedge_runtime.output import quiet

MODELS = Path(__file__).parent / "models"

# Every engine with the tiny model that it runs.
CASES = [(name, form) for name, kind in ENGINES.items() for form in sorted(kind.formats)]
MODULES = {"litert": "ai_edge_litert", "onnxruntime": "onnxruntime", "opencv": "cv2"}


def _open(name: str, form: str, **options: Any) -> Engine:
    pytest.importorskip(MODULES[name])
    with quiet():
        return open_engine(
            read_content(MODELS / f"tiny.{form}"), EngineOptions(engine=name, **options)
        )


def _inputs(engine: Engine, count: int) -> NDArray[Any]:
    values = np.random.default_rng(3).uniform(-1, 1, (count, *engine.input_shape[1:]))
    if engine.input.dtype == "float32":
        return values.astype(np.float32)
    return np.asarray(np.rint(values * 127), engine.input.dtype)


@pytest.fixture(params=CASES, ids=[name for name, _ in CASES])
def engine(request: pytest.FixtureRequest) -> Engine:
    return _open(*request.param)


def test_an_engine_says_what_it_is(engine: Engine) -> None:
    assert MODULES[engine.name] == engine.library
    assert engine.output_shape == (1, 4)
    assert len(engine.input_shape) == 4


def test_the_first_engine_of_a_format_is_its_default() -> None:
    assert [choice.engine_for(form, EngineOptions()) for form in ("tflite", "onnx")] == [
        "litert",
        "onnxruntime",
    ]


def test_both_engines_of_onnx_agree() -> None:
    first, second = _open("onnxruntime", "onnx"), _open("opencv", "onnx")
    assert (first.input, first.input_shape) == (second.input, second.input_shape)
    assert (first.output, first.output_shape) == (second.output, second.output_shape)
    for tensor in _inputs(first, 5)[:, None]:
        np.testing.assert_allclose(first.run(tensor), second.run(tensor), rtol=0, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("name", "form"), CASES)
def test_the_number_of_threads_changes_no_answer(name: str, form: str, threads: int) -> None:
    one, many = _open(name, form, threads=1), _open(name, form, threads=threads)
    tensor = _inputs(one, 1)
    np.testing.assert_allclose(one.run(tensor), many.run(tensor), rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_many_give_what_each_gives_alone(engine: Engine, count: int) -> None:
    tensors = _inputs(engine, count)
    found = engine.run_many(tensors)
    assert (found.shape, found.dtype) == ((count, 4), np.dtype(engine.output.dtype))
    for row, tensor in zip(found, tensors[:, None], strict=True):
        np.testing.assert_allclose(row, engine.run(tensor)[0], rtol=0, atol=1e-5)


def test_one_runs_after_many_as_before(engine: Engine) -> None:
    tensors = _inputs(engine, 3)
    before = engine.run(tensors[:1])
    engine.run_many(tensors)
    np.testing.assert_array_equal(engine.run(tensors[:1]), before)


def test_an_answer_is_the_callers_own(engine: Engine) -> None:
    tensors = _inputs(engine, 2)
    first = engine.run(tensors[:1])
    kept = first.copy()
    second = engine.run(tensors[1:])
    many = engine.run_many(tensors)
    assert not np.array_equal(kept, second)
    engine.warm_up()
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_allclose(many, np.concatenate([kept, second]), rtol=0, atol=1e-5)


def test_threads_that_share_an_engine_get_their_own_answers(engine: Engine) -> None:
    tensors = _inputs(engine, 4)
    expected = [engine.run(tensors[i : i + 1]) for i in range(4)]
    right: list[bool] = []

    def work(i: int) -> None:
        found = [engine.run(tensors[i : i + 1]) for _ in range(200)]
        right.append(all(np.array_equal(answer, expected[i]) for answer in found))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert right == [True] * 4


def _wrong(engine: Engine) -> dict[str, NDArray[Any]]:
    right = _inputs(engine, 2)
    return {
        "two for one": right,
        "one axis less": right[0],
        "another size": right[:1, :4],
        "another dtype": right[:1].astype(np.float64),
    }


@pytest.mark.parametrize("case", ["two for one", "one axis less", "another size", "another dtype"])
def test_a_tensor_that_does_not_fit_is_refused(engine: Engine, case: str) -> None:
    with pytest.raises(EngineError, match=r"^got a tensor of .*, the model takes .* \(1, "):
        engine.run(_wrong(engine)[case])


def test_many_that_do_not_fit_are_refused(engine: Engine) -> None:
    with pytest.raises(EngineError, match="the model takes"):
        engine.run_many(_inputs(engine, 3)[:, :5])


class _Stubborn(Engine):
    """An engine that refuses batches, or answers for their first input only."""

    name = library = "made up"
    faults = (RuntimeError,)

    def __init__(self, refuses: bool) -> None:
        super().__init__(Port((1, 3), Tensor()), Port((1, 3), Tensor()))
        self.refuses, self.tried = refuses, 0

    def set(self, tensors: NDArray[Any]) -> None:
        self.tried += len(tensors) > 1
        if len(tensors) > 1 and self.refuses:
            raise RuntimeError("no\nbatch")
        self.taken = tensors

    def invoke(self) -> None:
        self.given = self.taken[:1] * 2

    def get(self) -> NDArray[Any]:
        return self.given

    def release(self) -> None:
        del self.taken


@pytest.mark.parametrize("refuses", [True, False])
def test_a_batch_falls_back_to_a_loop_and_is_not_tried_again(refuses: bool) -> None:
    engine = _Stubborn(refuses)
    tensors = np.arange(12, dtype=np.float32).reshape(4, 3)
    for _ in range(3):
        np.testing.assert_array_equal(engine.run_many(tensors), tensors * 2)
    assert engine.tried == 1


class _Unplugged(_Stubborn):
    def invoke(self) -> None:
        raise RuntimeError("USB\n  gone")


@pytest.mark.parametrize("verb", ["run", "run_many"])
def test_a_run_that_fails_is_one_line(verb: str) -> None:
    engine = _Unplugged(False)
    with pytest.raises(EngineError, match=r"^made up failed to run the model: USB gone$"):
        getattr(engine, verb)(np.zeros((1, 3), np.float32))


# Real models that take a batch under XNNPACK, and such that don't.
@pytest.mark.parametrize(
    "name", ["mobilenet_v1_0.25_128_quant.tflite", "tf2_mobilenet_v2_1.0_224_ptq.tflite"]
)
@pytest.mark.parametrize("kernels", ["default", "builtin"])
def test_real_models_answer_many_as_one_by_one(shared: Path, name: str, kernels: Any) -> None:
    pytest.importorskip("ai_edge_litert")
    with quiet():
        options = EngineOptions(kernels=kernels)
        engine = open_engine(read_content(shared / "data" / "edgetpu" / name), options)
        tensors = np.random.default_rng(0).integers(0, 256, (3, *engine.input_shape[1:]), np.uint8)
        found = engine.run_many(tensors)
        alone = [engine.run(tensors[i : i + 1])[0] for i in range(3)]
    np.testing.assert_array_equal(found, alone)


KERNELS = ["default", "builtin", "reference"]


def test_all_kernels_of_litert_agree_within_a_step() -> None:
    found = [_open("litert", "tflite", kernels=kernels) for kernels in KERNELS]
    for tensor in _inputs(found[0], 5)[:, None]:
        answers = np.concatenate([engine.run(tensor) for engine in found]).astype(int)
        assert np.ptp(answers, axis=0).max() <= 1


def test_reference_kernels_give_the_recorded_bytes() -> None:
    engine = _open("litert", "tflite", kernels="reference")
    steps = np.arange(16 * 16 * 3).reshape(engine.input_shape) % 255 - 127
    # Integer arithmetic: the same on every machine and in both LiteRTs.
    assert engine.run(steps.astype(np.int8)).tolist() == RECORDED


RECORDED = [[-98, -98, -97, -92]]

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "an engine of another format": ("onnx", {"engine": "litert"}, "litert runs no .onnx files; "),
    "onnxruntime for tflite": ("tflite", {"engine": "onnxruntime"}, "engines that do: litert$"),
    "kernels that aren't there": (
        "onnx",
        {"kernels": "reference"},
        "onnxruntime has no reference kernels, only: default",
    ),
    "a delegate for ONNX": ("onnx", {"delegate": "edgetpu"}, "onnxruntime takes no delegate"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_an_engine_can_not_do_is_refused(case: str) -> None:
    form, options, message = REFUSED[case]
    with pytest.raises(EngineError, match=message):
        open_engine(read_content(MODELS / f"tiny.{form}"), EngineOptions(**options))


@pytest.mark.parametrize(("name", "form"), [case for case in CASES if case[0] != "opencv"])
def test_a_name_that_is_no_text_is_opened(tmp_path: Path, name: str, form: str) -> None:
    pytest.importorskip(MODULES[name])
    odd = tmp_path / f"caf\udce9.{form}"
    shutil.copy(MODELS / f"tiny.{form}", odd)
    with quiet():
        engine = open_engine(read_content(odd), EngineOptions(engine=name))
        engine.warm_up()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads is 0, allowed are 1 and more"),
        ({"threads": -3}, "threads is -3"),
        ({"engine": "torch"}, "engine is 'torch', known are litert, onnxruntime, opencv"),
        ({"kernels": "fast"}, "kernels is 'fast', known are default, builtin, reference"),
    ],
)
def test_options_that_no_engine_has_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EngineOptions(**options)


def test_all_cores_are_the_default() -> None:
    assert EngineOptions().thread_count == choice.cores() >= 1
    assert EngineOptions(threads=3).thread_count == 3


@contextmanager
def _without(monkeypatch: pytest.MonkeyPatch, *names: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(choice, "find_spec", lambda name: None if name in names else find_spec(name))
        yield


MISSING = {
    "litert": ("litert is not installed: pip install ", ("ai_edge_litert", "tflite_runtime")),
    "onnxruntime": (
        r"onnxruntime is not installed: .*kedge\[onnx\].* --engine opencv",
        ("onnxruntime",),
    ),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_library_is_one_line_with_the_cure(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message, modules = MISSING[name]
    form = "tflite" if name == "litert" else "onnx"
    with _without(monkeypatch, *modules), pytest.raises(EngineError, match=message):
        open_engine(read_content(MODELS / f"tiny.{form}"))


def test_a_broken_library_tells_its_cause(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ai_edge_litert", "tflite_runtime"):
        for module in [m for m in sys.modules if m.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
    folder = tmp_path / "ai_edge_litert"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "interpreter.py").write_text("raise ImportError('GLIBC_2.99\\n not found')")
    monkeypatch.syspath_prepend(tmp_path)
    cause = "^ai-edge-litert can't be imported: GLIBC_2.99 not found$"
    with _without(monkeypatch, "tflite_runtime"), pytest.raises(EngineError, match=cause):
        open_engine(read_content(MODELS / "tiny.tflite"))


@pytest.mark.parametrize(
    ("version", "gate"),
    [("1.26.4", ""), ("2.0.0", "tflite-runtime fails with numpy 2.0.0: pip install 'numpy<2'")],
)
def test_tflite_runtime_is_kept_from_numpy_2(version: str, gate: str) -> None:
    modern, old = ENGINES["litert"].libraries
    assert numpy_gate(old, version) == gate
    assert numpy_gate(modern, version) == ""


@pytest.mark.parametrize(("version", "runs"), [("4.6.0", False), ("4.8.1", True), ("5.0.0", True)])
def test_an_old_opencv_runs_no_models(version: str, runs: bool) -> None:
    (library,) = ENGINES["opencv"].libraries
    gate = version_gate(library, version)
    assert (gate == "") == runs
    assert runs or gate.startswith(f"cv2 {version} runs no models, 4.8 and newer do: pip install ")


@pytest.mark.parametrize(
    ("engine", "machine", "python", "advice"),
    [
        ("litert", "aarch64", (3, 13), "pip install ai-edge-litert"),
        ("litert", "x86_64", (3, 10), "pip install ai-edge-litert"),
        ("litert", "armv7l", (3, 11), "pip install tflite-runtime 'numpy<2'"),
        ("litert", "armv7l", (3, 12), "use Python 3.11, or a 64-bit system"),
        ("onnxruntime", "aarch64", (3, 13), "run a float32 model with --engine opencv"),
        ("onnxruntime", "armv7l", (3, 11), "run a float32 model with --engine opencv"),
        ("opencv", "armv7l", (3, 11), "pip install opencv-python-headless"),
    ],
)
def test_the_advice_fits_the_machine(
    engine: str, machine: str, python: tuple[int, int], advice: str
) -> None:
    found = how_to_install(engine, machine, python)
    assert found.endswith(advice)
    assert ("keras-kedge[onnx]" in found) == ((engine, machine) == ("onnxruntime", "aarch64"))


def test_an_old_opencv_is_not_sent_to_an_onnxruntime_that_32_bit_arm_lacks() -> None:
    (library,) = ENGINES["opencv"].libraries
    gate = version_gate(library, "4.6.0", "armv7l")
    assert gate.endswith("do: use .tflite files or a 64-bit system, or upgrade " + library.package)
    assert "keras-kedge[onnx]" in version_gate(library, "4.6.0", "aarch64")


@pytest.mark.parametrize("count", [0, 2])
def test_models_with_another_number_of_ends_are_refused(count: int) -> None:
    with pytest.raises(EngineError, match=f"has 1 input and {count} outputs"):
        single_ports(["input"], ["output"] * count)


@pytest.mark.parametrize("name", ["keras_lstm_mnist_ptq", "deeplabv3_mnv2_dm05_pascal_quant"])
def test_real_models_open_or_are_refused_in_one_line(shared: Path, name: str) -> None:
    pytest.importorskip("ai_edge_litert")
    path = shared / "data" / "edgetpu" / f"{name}.tflite"
    try:
        with quiet():
            engine = open_engine(read_content(path))
    except EngineError as error:
        assert str(error).startswith(f"{path}: the model has an input or output of int64")
        assert "\n" not in str(error)
    else:
        assert engine.output_shape == (1, 10)


# OpenCV may end the process over a batch, so it is never given one.
@pytest.mark.parametrize(("name", "batches"), [("onnxruntime", [6]), ("opencv", [1] * 6)])
def test_a_model_with_a_free_batch_takes_many_at_once(
    name: str, batches: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(MODULES[name])
    onnx = pytest.importorskip("onnx")
    model = onnx.load(MODELS / "tiny.onnx")
    for end in (*model.graph.input, *model.graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = "batch"
    path = tmp_path / "free.onnx"
    onnx.save(model, path)
    free = open_engine(read_content(path), EngineOptions(engine=name))
    fixed = _open(name, "onnx")
    assert (free.input_shape, free.output_shape) == (fixed.input_shape, fixed.output_shape)
    tensors = _inputs(free, 6)
    sizes: list[int] = []
    run = free._run

    def counted(batch: NDArray[Any]) -> NDArray[Any]:
        sizes.append(len(batch))
        return run(batch)

    monkeypatch.setattr(free, "_run", counted)
    np.testing.assert_allclose(free.run_many(tensors), fixed.run_many(tensors), rtol=0, atol=1e-5)
    assert sizes == batches


def test_threads_may_share_a_classifier(form: str, artefacts: Path) -> None:
    pytest.importorskip(MODULES[choice.engine_for(form, EngineOptions())])
    classifier = Classifier.open(artefacts / f"tiny.{form}")
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (size, 40, 3), np.uint8) for size in (20, 33, 64, 90)] * 20
    expected = [classifier.outputs(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(classifier.outputs, pictures))
    np.testing.assert_array_equal(found, expected)
