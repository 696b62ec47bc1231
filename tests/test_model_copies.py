"""A large file is sealed, and sealed again, without another copy of its model."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kedge_runtime.artefact import containers
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import artefact_of, members_of, read_artefact
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.reseal import resealed, write_resealed
from kedge_runtime.field.measure import STATISTICS
from kedge_runtime.field.sketch import Seen, Sketch, sketch_of
from kedge_runtime.files import write_whole

SIZE = 64 << 20
# A field of so many bytes: number 7 (ModelProto.graph), which nothing here reads.
MODELS = {"tflite": bytes(SIZE), "onnx": b"\x3a" + b"\x80\x80\x80\x20" + bytes(SIZE)}


def copies(work: Callable[[], object]) -> float:
    """Return how often the model's size is allocated at once by a piece of work."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / SIZE
    finally:
        tracemalloc.stop()


@pytest.fixture
def large(form: str, contracts: dict[str, Contract], golden: Golden, tmp_path: Path) -> Path:
    path, members = tmp_path / f"large.{form}", members_of(form, contracts[form], golden)
    write_whole(path, *containers.parts(form, MODELS[form], members))
    return path


def test_a_model_is_sealed_in_place(
    form: str, contracts: dict[str, Contract], golden: Golden, tmp_path: Path
) -> None:
    path, model = tmp_path / f"large.{form}", MODELS[form]
    members = members_of(form, contracts[form], golden)
    assert copies(lambda: write_whole(path, *containers.parts(form, model, members))) < 0.1
    assert artefact_of(read_content(path)).contract == contracts[form]


def sketch() -> Sketch:
    rows = np.random.default_rng(0).uniform(0, 1, (50, len(STATISTICS))).astype(np.float32)
    return sketch_of(Seen(rows, np.zeros(50, np.int64), None), 4)


@pytest.mark.parametrize("added", [None, sketch()], ids=["contract", "sketch"])
def test_a_file_is_sealed_again_with_the_one_copy_that_was_read(
    large: Path, form: str, added: Sketch | None
) -> None:
    contract = read_artefact(large).contract
    changed = replace(contract, output=replace(contract.output, temperature=2.0))
    share = copies(lambda: write_resealed(large, resealed(read_content(large), changed, added)))
    assert 1 <= share < 1.1
    content = read_content(large)
    artefact = artefact_of(content)
    assert artefact.contract == changed
    assert bool(artefact.packed_sketch) is (added is not None)
    assert containers.split(form, content.data)[0] == MODELS[form]
