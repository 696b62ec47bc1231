"""`kedge verify`: no false alarm on any engine, and every fault found in the step where it lies.

Faults are seeded in two ways: into the file, which is then sealed anew with its old golden set as
somebody would who edits a deployment, and into the runtime's own code.
"""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_runtime.artefact.content import format_of
from kedge_runtime.artefact.contract import Contract, Quantisation, Tensor
from kedge_runtime.artefact.file import read_artefact, seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.kinds import Precision
from kedge_runtime.artefact.provenance import FOREIGN
from kedge_runtime.checks.verify import CHECKS, TOLERANCES, VerifyStage, same_integers, verify
from kedge_runtime.classify import results
from kedge_runtime.engines.choice import ENGINES, EngineOptions
from kedge_runtime.engines.isolated import Isolated
from kedge_runtime.errors import EngineError
from kedge_runtime.image import decode as image
from kedge_runtime.image import geometry, preprocessing
from kedge_runtime.output import quiet

Run = Callable[..., tuple[int, str, str]]

NAMES = [
    "demo.float32.tflite",
    "demo.float16.tflite",
    "demo.dynamic.tflite",
    "demo.int8.tflite",
    "demo.float32.onnx",
    "demo.int8.onnx",
]
INT8 = "demo.int8.tflite"


ONE = EngineOptions(threads=1)


def _verify(path: Path, options: EngineOptions = ONE) -> list[VerifyStage]:
    with quiet():
        return verify(path, options)


def _ways(name: str) -> list[EngineOptions]:
    """Return every engine and kernel that runs a file, with one to four threads."""
    form, integer = name.rpartition(".")[2], "float32" not in name
    able = {key: kind for key, kind in ENGINES.items() if form in kind.formats}
    # OpenCV runs no integer graphs; the reference kernels take a second a picture.
    return [
        EngineOptions(threads, engine=key, kernels=kernels)
        for key, kind in able.items()
        if not (key == "opencv" and integer)
        for kernels in sorted(kind.kernels - {"reference"})
        for threads in (1, 2, 3, 4)
    ]


RIGHT = [(name, way) for name in NAMES for way in _ways(name)]
IDS = [f"{n[5:]}-{w.engine}-{w.kernels}-{w.threads}" for n, w in RIGHT]


@pytest.mark.parametrize(("name", "options"), RIGHT, ids=IDS)
def test_no_false_alarm(demo_artefacts: Path, name: str, options: EngineOptions) -> None:
    stages = _verify(demo_artefacts / name, options)
    assert [stage.name for stage in stages] == ["file", *CHECKS]
    assert [stage for stage in stages if not stage.passed] == []


def _first_failure(stages: list[VerifyStage]) -> str:
    """Return the stage at fault; what stands before it must be right."""
    names = ["file", *CHECKS]
    found = next(stage.name for stage in stages if not stage.passed)
    before = [stage.name for stage in stages[: names.index(found)] if stage.passed]
    assert before == names[: len(before)]
    return found


def _model(path: Path) -> bytes:
    """Return a sealed file without what was appended; ONNX takes the last entry of a name."""
    content = path.read_bytes()
    if path.suffix == ".onnx":
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return content[: archive.infolist()[0].header_offset]


def _sealed(path: Path, folder: Path, contract: Contract, model: bytes = b"") -> Path:
    """Seal a model (default: the file's own) with a contract and the file's own golden set."""
    form, golden = format_of(path), read_artefact(path).golden
    tampered = folder / path.name
    tampered.write_bytes(seal(form, model or _model(path), contract, golden))
    return tampered


def _geometry(**changes: Any) -> Callable[[Contract], Contract]:
    def changed(contract: Contract) -> Contract:
        changed = replace(contract.input.geometry, **changes)
        return replace(contract, input=replace(contract.input, geometry=changed))

    return changed


def _normalisation(**changes: Any) -> Callable[[Contract], Contract]:
    def changed(contract: Contract) -> Contract:
        changed = replace(contract.input.normalisation, **changes)
        return replace(contract, input=replace(contract.input, normalisation=changed))

    return changed


def _output(**changes: Any) -> Callable[[Contract], Contract]:
    return lambda contract: replace(contract, output=replace(contract.output, **changes))


def _rotated(contract: Contract) -> Contract:
    return replace(contract, labels=contract.labels[1:] + contract.labels[:1])


def _uint8(contract: Contract) -> Contract:
    tensor = Tensor("uint8", Quantisation(1 / 127.5, 128))
    return replace(contract, input=replace(contract.input, tensor=tensor))


# A fault in the deployed contract -> the change, and the stage that must be named.
CONTRACTS: dict[str, tuple[Callable[[Contract], Contract], str]] = {
    "BGR for RGB": (_normalisation(colour="bgr"), "preprocess"),
    "0..1 for -1..1": (_normalisation(divisor=255.0, mean=(0.0, 0.0, 0.0)), "preprocess"),
    "0..255 for -1..1": (_normalisation(divisor=1.0, mean=(0.0, 0.0, 0.0)), "preprocess"),
    "wrong size": (_geometry(height=80, width=80), "contract"),
    "no crop": (_geometry(fit="stretch"), "preprocess"),
    "another crop": (_geometry(crop_fraction=1.0), "preprocess"),
    "letterbox": (_geometry(fit="letterbox"), "preprocess"),
    "another resize": (_geometry(resize="area"), "preprocess"),
    "labels shifted by one": (_rotated, "answer"),
    "no softmax": (_output(kind="softmax"), "answer"),
    "sigmoid for softmax": (_output(activation="sigmoid"), "answer"),
    "another temperature": (_output(temperature=1.5), "answer"),
    "wrong engine dtype": (_uint8, "contract"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", CONTRACTS)
def test_a_fault_in_the_contract_is_found(
    demo_artefacts: Path, tmp_path: Path, kedge: Run, name: str, fault: str
) -> None:
    change, stage = CONTRACTS[fault]
    original = demo_artefacts / name
    tampered = _sealed(original, tmp_path, change(read_artefact(original).contract))
    assert _first_failure(_verify(tampered)) == stage
    code, out, _ = kedge("verify", tampered, "--json")
    assert (code, json.loads(out)["passed"]) == (1, False)


def test_the_tampering_itself_raises_no_alarm(demo_artefacts: Path, tmp_path: Path) -> None:
    for name in NAMES:
        original = demo_artefacts / name
        same = _sealed(original, tmp_path, read_artefact(original).contract)
        assert all(stage.passed for stage in _verify(same)), name


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_precision_gets_the_widest_tolerance(
    demo_artefacts: Path, tmp_path: Path, name: str
) -> None:
    original = demo_artefacts / name
    contract = replace(read_artefact(original).contract, provenance=FOREIGN)
    same = {stage.name: stage for stage in _verify(_sealed(original, tmp_path, contract))}
    assert all(stage.passed for stage in same.values())
    if name == INT8:
        assert "precision is unknown" in same["exact"].detail
    model = WITH[format_of(original)](_model(original), _shuffled)
    assert _first_failure(_verify(_sealed(original, tmp_path, contract, model))) == "engine"


def test_every_precision_has_a_tolerance() -> None:
    assert TOLERANCES.keys() == set(get_args(Precision))


Weights = Callable[[NDArray[Any]], NDArray[Any]]


def _shuffled(values: NDArray[Any]) -> NDArray[Any]:
    return np.random.default_rng(0).permutation(values)


def _tflite_with(model: bytes, change: Weights) -> bytes:
    """Return a model whose constants of numbers are changed; their places stay."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    content = bytearray(model)
    root = schema.Model.GetRootAs(content, 0)
    kinds = schema.TensorType
    dtypes = {kinds.FLOAT32: np.float32, kinds.FLOAT16: np.float16, kinds.INT8: np.int8}
    graph = root.Subgraphs(0)
    for tensor in map(graph.Tensors, range(graph.TensorsLength())):
        buffer = root.Buffers(tensor.Buffer())
        if buffer.DataLength() > 64 and tensor.Type() in dtypes:
            values = buffer.DataAsNumpy().view(dtypes[tensor.Type()])
            values[:] = change(values)
    return bytes(content)


def _onnx_with(model: bytes, change: Weights) -> bytes:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_from_string(model)
    for tensor in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.size > 64 and values.dtype in (np.float32, np.int8):
            changed = change(values.reshape(-1)).reshape(values.shape)
            tensor.CopyFrom(onnx.numpy_helper.from_array(changed, tensor.name))
    return bytes(graph.SerializeToString())


WITH = {"tflite": _tflite_with, "onnx": _onnx_with}


@pytest.mark.parametrize("name", NAMES)
def test_other_weights_are_found(demo_artefacts: Path, tmp_path: Path, name: str) -> None:
    original = demo_artefacts / name
    model = WITH[format_of(original)](_model(original), _shuffled)
    tampered = _sealed(original, tmp_path, read_artefact(original).contract, model)
    assert _first_failure(_verify(tampered)) == "engine"


def test_one_step_of_a_few_int8_weights_is_found_by_the_reference_kernels(
    demo_artefacts: Path, tmp_path: Path
) -> None:
    def nudged(values: NDArray[Any]) -> NDArray[Any]:
        return values if values.dtype != np.int8 else np.where(values == 1, np.int8(2), values)

    original = demo_artefacts / INT8
    model = _tflite_with(_model(original), nudged)
    tampered = _sealed(original, tmp_path, read_artefact(original).contract, model)
    failed = [stage.name for stage in _verify(tampered) if not stage.passed]
    assert "exact" in failed


def test_the_weights_of_another_precision_are_found(demo_artefacts: Path, tmp_path: Path) -> None:
    original = demo_artefacts / INT8
    other = _model(demo_artefacts / "demo.float32.tflite")
    tampered = _sealed(original, tmp_path, read_artefact(original).contract, other)
    assert _first_failure(_verify(tampered)) == "contract"


def test_a_softmax_inside_the_model_and_one_behind_it_are_found(
    demo_artefacts: Path, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    original = demo_artefacts / "demo.float32.onnx"
    model = onnx.load_from_string(_model(original))
    (end,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["inner" if name == end.name else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Softmax", ["inner"], [end.name]))
    contract = read_artefact(original).contract
    tampered = _sealed(original, tmp_path, contract, bytes(model.SerializeToString()))
    assert _first_failure(_verify(tampered)) == "engine"


def _twice(logits: Any) -> Any:
    return results.softmax(results.softmax(logits))


def _other_way_round(decode: Any) -> Any:
    return lambda *arguments, **named: decode(*arguments, **named)[..., ::-1].copy()


def _half_a_step_off(table: Any) -> Any:
    return lambda *arguments: np.roll(table(*arguments), 1, axis=1)


def _next_label(prediction: Any) -> Any:
    return lambda self, output, p: prediction(self, (output + 1) % len(self.labels), p)


def _noisy(get: Any) -> Any:
    return lambda self: get(self)[..., ::-1].copy()


def _sideways(pixels: Any, height: int, width: int) -> Any:
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)


# A fault in the code of the runtime -> where it is put, and the stage that must be named.
Patch = Callable[[pytest.MonkeyPatch], None]
CODE: dict[str, tuple[Patch, str]] = {
    "a decoder that gives BGR": (
        lambda m: m.setattr(image, "_decode", _other_way_round(image._decode)),
        "decode",
    ),
    "another resize": (lambda m: m.setitem(geometry.RESIZES, "pyramid", _sideways), "preprocess"),
    "a crop from the corner": (
        lambda m: m.setattr(geometry, "_centre", lambda pixels, h, w: pixels[:h, :w]),
        "preprocess",
    ),
    "a shifted table": (
        lambda m: m.setattr(preprocessing, "table", _half_a_step_off(preprocessing.table)),
        "preprocess",
    ),
    "an engine that computes wrongly": (
        lambda m: m.setattr(Isolated, "get", _noisy(Isolated.get)),
        "engine",
    ),
    "a softmax twice": (lambda m: m.setitem(results.ACTIVATIONS, "softmax", _twice), "answer"),
    "no softmax": (lambda m: m.setitem(results.ACTIVATIONS, "softmax", lambda x: x), "answer"),
    "labels shifted by one": (
        lambda m: m.setattr(results.Classes, "prediction", _next_label(results.Classes.prediction)),
        "answer",
    ),
}


@pytest.mark.parametrize("fault", CODE)
def test_a_fault_in_the_runtime_is_found(
    demo_artefacts: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    patch, stage = CODE[fault]
    patch(monkeypatch)
    assert _first_failure(_verify(demo_artefacts / INT8)) == stage


def test_a_changed_file_is_found_before_anything_runs(
    demo_artefacts: Path, tmp_path: Path, kedge: Run
) -> None:
    path = tmp_path / INT8
    content = bytearray((demo_artefacts / INT8).read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    code, out, err = kedge("verify", path)
    assert (code, err) == (1, "")
    first, verdict = out.splitlines()
    assert first.startswith("file        FAILED")
    assert verdict == f"{INT8}: FAILED at stage `file`: do not deploy on this machine"


def test_golden_pictures_that_no_decoder_reads_are_the_decoders_fault(
    artefacts: Path, form: str
) -> None:
    pytest.importorskip({"tflite": "ai_edge_litert", "onnx": "onnxruntime"}[form])
    (*_, last) = _verify(artefacts / f"tiny.{form}")
    assert (last.name, last.passed) == ("decode", False)


def test_a_model_that_computes_no_number_is_the_engines_fault(
    demo_artefacts: Path, tmp_path: Path
) -> None:
    original = demo_artefacts / "demo.float32.onnx"
    model = _onnx_with(_model(original), lambda values: values * np.float32("nan"))
    stages = _verify(_sealed(original, tmp_path, read_artefact(original).contract, model))
    assert _first_failure(stages) == "engine"
    assert "aren't finite" in stages[-1].detail


def test_an_engine_that_can_not_open_it_is_named(artefacts: Path) -> None:
    (*_, last) = _verify(artefacts / "tiny.onnx", EngineOptions(engine="litert"))
    assert (last.name, last.passed) == ("engine", False)


def test_reference_kernels_that_refuse_the_model_fail_their_stage_only(
    demo_artefacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise EngineError("LiteRT can't load it: no op TILE version 2")

    monkeypatch.setattr("kedge_runtime.checks.verify.exact_outputs", refused)
    failed = [stage for stage in _verify(demo_artefacts / INT8) if not stage.passed]
    assert failed == [VerifyStage("exact", False, "LiteRT can't load it: no op TILE version 2")]


def test_json_is_all_that_stdout_holds(demo_artefacts: Path, kedge: Run) -> None:
    code, out, err = kedge("verify", demo_artefacts / INT8, "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert list(answer) == ["schema", "command", "artefact", "passed", "serial", "stages"]
    assert answer["serial"] is None
    assert (answer["command"], answer["passed"]) == ("verify", True)
    assert [stage["name"] for stage in answer["stages"]] == ["file", *CHECKS]
    assert all(set(stage) == {"name", "passed", "detail"} for stage in answer["stages"])


def test_no_golden_set_is_no_proof(
    models: dict[str, bytes], contracts: dict[str, Contract], form: str, tmp_path: Path
) -> None:
    path = tmp_path / f"tiny.{form}"
    path.write_bytes(seal(form, models[form], contracts[form], Golden.none()))
    assert not all(stage.passed for stage in _verify(path))


@pytest.mark.parametrize(
    ("library", "count", "by", "passes"),
    [
        ("ai_edge_litert", 0, 0, True),
        ("ai_edge_litert", 1, 1, False),
        ("tflite_runtime", 10, 1, True),
        ("tflite_runtime", 11, 1, False),
        ("tflite_runtime", 1, 2, False),
    ],
)
def test_exact_is_exact_but_for_an_older_library(
    library: str, count: int, by: int, passes: bool
) -> None:
    recorded = np.full((1, 1000), 127, np.int8)
    found = recorded.copy()
    found[0, :count] -= by
    assert same_integers(found, recorded, library) is passes
    assert not same_integers(found[:, :-1], recorded, library)
