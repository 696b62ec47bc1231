"""Models that lie about themselves are refused before an engine believes them."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hostile_models
from conftest import MODELS, Run
from hostile_models import KINDS, changed
from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.errors import ArtefactError
from kedge_runtime.modelfile.check.check import check_model

LIBRARY = {"tflite": "ai_edge_litert.schema_py_generated", "onnx": "onnx"}
ALL = [(form, kind) for form, kinds in KINDS.items() for kind in kinds]
# It ends LiteRT 2.3 with any kernels; of the others some do so in larger models only.
DEADLY = "a new shape left out"


def _hostile(form: str, kind: str) -> tuple[ModelContent, str]:
    pytest.importorskip(LIBRARY[form])
    change, message = KINDS[form][kind]
    content = changed(form, (MODELS / f"tiny.{form}").read_bytes(), change)
    return ModelContent(Path(f"hostile.{form}"), form, content), message


@pytest.mark.parametrize(("form", "kind"), ALL)
def test_every_kind_is_refused_in_one_line(form: str, kind: str) -> None:
    content, message = _hostile(form, kind)
    with pytest.raises(ArtefactError, match=message) as caught:
        open_engine(content)
    assert str(caught.value).startswith(f"hostile.{form}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", list(KINDS))
def test_the_model_that_they_are_made_of_passes(form: str) -> None:
    """A check that refused everything would pass the test above."""
    pytest.importorskip(LIBRARY[form])
    content = changed(form, (MODELS / f"tiny.{form}").read_bytes(), lambda _: None)
    cost = check_model(ModelContent(Path(f"plain.{form}"), form, content))
    assert cost.work > 0
    assert cost.unknown == ()


def test_litert_itself_dies_of_one(tmp_path: Path) -> None:
    """The judge: without the check the process ends with a signal."""
    pytest.importorskip("ai_edge_litert.interpreter")
    path = tmp_path / "m.tflite"
    path.write_bytes(_hostile("tflite", DEADLY)[0].data)
    code = (
        "import sys; from ai_edge_litert.interpreter import Interpreter; "
        "Interpreter(sys.argv[1]).allocate_tensors()"
    )
    ended = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGSEGV


def test_bytes_that_are_no_model_are_called_so() -> None:
    for form in KINDS:
        with pytest.raises(ArtefactError, match=f"no readable .{form} model"):
            check_model(ModelContent(Path(f"m.{form}"), form, b"\x07TFL3" * 40))


@pytest.mark.parametrize(
    ("command", "code"), [("classify", 2), ("verify", 1), ("inspect", 2), ("seal", 2), ("bench", 2)]
)
def test_every_command_survives(
    kedge: Run,
    tmp_path: Path,
    pictures: Path,
    contracts: dict[str, Contract],
    golden: Golden,
    command: str,
    code: int,
) -> None:
    """Sealed with a digest that holds: anybody can make one."""
    content, message = _hostile("tflite", DEADLY)
    path = tmp_path / "hostile.tflite"
    path.write_bytes(seal("tflite", content.data, contracts["tflite"], golden))
    words: dict[str, list[Any]] = {
        "classify": [path, pictures],
        "seal": [path, "--reseal", "--labels", tmp_path / "l", "--preprocess", "load_img"],
        "bench": [path, pictures],
    }
    (tmp_path / "l").write_text("a\nb\nc\nd\n", encoding="utf-8")
    found, out, err = kedge(command, *words.get(command, [path]))
    assert found == code
    assert message in out + err
    assert len((out + err).splitlines()) <= 3


def test_real_files_pass(shared: Path) -> None:
    """Quantised by others, years apart; those of the Edge TPU have its own operator."""
    files = sorted((shared / "data" / "edgetpu").glob("*.tflite"))
    assert len(files) > 8
    for path in files:
        assert check_model(read_content(path)).unknown == ()


def test_known_hostile_files_are_refused(shared: Path) -> None:
    files = [
        path
        for path in sorted((shared / "data" / "hostile").iterdir())
        if path.suffix in (".tflite", ".onnx") and not path.name.startswith("metadata")
    ]
    assert len(files) >= 5
    for path in files:
        with pytest.raises(ArtefactError, match="invalid"):
            check_model(read_content(path))


def test_an_operator_that_no_check_knows_runs_in_its_own_process() -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")

    def change(graph: Any) -> None:
        (image,) = (each.name for each in graph.input)
        node = onnx.helper.make_node("IsNaN", [image], ["nan"])
        cast = onnx.helper.make_node("Cast", ["nan"], ["real"], to=1)
        graph.node.insert(0, cast)
        graph.node.insert(0, node)
        graph.node[2].input[0] = "real"

    data = hostile_models.changed("onnx", (MODELS / "tiny.onnx").read_bytes(), change)
    content = ModelContent(Path("m.onnx"), "onnx", data)
    assert check_model(content).unknown == ("IsNaN",)
    engine = open_engine(content)
    assert type(engine).__name__ == "Isolated"
    engine.warm_up()
