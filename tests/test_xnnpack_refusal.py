"""A model that XNNPACK refuses and LiteRT's own kernels run: opened with those, and said so.

XNNPACK takes no convolution whose requantisation factor is 256 or more. The tiny model becomes one
when the scales of its first kernel are multiplied by a million.
"""

from pathlib import Path

import numpy as np
import pytest

from conftest import MODELS, Run, tiny_contract
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.engines import litert as litert_engine
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.errors import EngineError
from kedge_runtime.output import quiet

litert = pytest.importorskip("ai_edge_litert.interpreter")

NOTE = "XNNPACK refuses the model, LiteRT's own slower kernels run it"


def _refused() -> bytes:
    content = (MODELS / "tiny.tflite").read_bytes()
    with quiet():
        details = litert.Interpreter(model_content=content).get_tensor_details()
    scales = max((each["quantization_parameters"]["scales"] for each in details), key=len)
    assert content.count(scales.tobytes()) == 1
    return content.replace(scales.tobytes(), (scales * np.float32(1e6)).tobytes())


@pytest.fixture
def refused(tmp_path: Path, golden: Golden) -> Path:
    path = tmp_path / "refused.tflite"
    path.write_bytes(seal("tflite", _refused(), tiny_contract("tflite"), golden))
    return path


def test_xnnpack_does_refuse_it(refused: Path) -> None:
    with quiet(), pytest.raises(RuntimeError, match="XNNPACK"):
        litert.Interpreter(str(refused)).allocate_tensors()


def test_litert_opens_it_with_its_own_kernels_and_says_so(refused: Path) -> None:
    with quiet():
        engine = open_engine(read_content(refused))
        asked = open_engine(read_content(refused), EngineOptions(kernels="builtin"))
    assert engine.note.startswith(NOTE)
    assert "\n" not in engine.note
    assert asked.note == ""
    tensor = np.random.default_rng(0).integers(-128, 128, engine.input_shape).astype(np.int8)
    np.testing.assert_array_equal(engine.run(tensor), asked.run(tensor))


def test_what_no_kernels_run_stays_an_error(tmp_path: Path) -> None:
    path = tmp_path / "damaged.tflite"
    path.write_bytes((MODELS / "tiny.tflite").read_bytes()[:500])
    # The engine itself: the check before it would say so first.
    with quiet(), pytest.raises(EngineError, match="LiteRT can't load it"):
        litert_engine.open_engine(read_content(path), EngineOptions())


def test_a_model_that_xnnpack_takes_has_no_note() -> None:
    with quiet():
        assert open_engine(read_content(MODELS / "tiny.tflite")).note == ""


def test_classify_and_bench_say_it_once(kedge: Run, refused: Path, pictures: Path) -> None:
    for words in (["classify"], ["bench", "--rounds", "2", "--warm-up", "1"]):
        code, _, told = kedge(*words, refused, *sorted(pictures.iterdir())[:3])
        assert code == 0, told
        assert told.count(NOTE) == 1
        assert f"kedge: {refused}: {NOTE}" in told
