"""Operators that LiteRT's reference kernels lack: the file is made, and says what it lacks."""

from pathlib import Path

import numpy as np
import pytest

import nets
from kedge_convert import contract_builder
from kedge_convert.export.exported import ExportOptions
from kedge_convert.export.formats import FORMATS
from kedge_convert.images import ImageSplit, tensors
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Geometry, Input, Label, Normalisation, Output
from kedge_runtime.artefact.file import read_artefact, seal
from kedge_runtime.artefact.sealing import golden_images, golden_set, inexact_note
from kedge_runtime.checks.verify import verify
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.errors import EngineError

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")


@pytest.mark.parametrize(("name", "exact"), [("elu", False), ("chain", True)])
def test_a_file_without_exact_kernels_is_sealed_and_verified(
    name: str, exact: bool, pictures: Path, tmp_path: Path
) -> None:
    spec = Input(Geometry(nets.SIDE, nets.SIDE), Normalisation("rgb", 127.5, (1.0, 1.0, 1.0)))
    labels = tuple(Label(f"{i}", f"{i}") for i in range(5))
    source = Source(name, nets.make(name), spec, Output(), labels, "")
    photos = ImageSplit(tuple(sorted(pictures.iterdir())), ())
    path, target = tmp_path / "net.int8.tflite", Target("tflite", "int8")
    made = FORMATS["tflite"].export(source, "int8", ExportOptions(photos.calibration))
    path.write_bytes(made.content)
    if not exact:
        with pytest.raises(EngineError):
            open_engine(read_content(path), EngineOptions(kernels="reference"))
    contract = contract_builder.contract_of(source, target, open_engine(read_content(path)), photos)
    logits = source.logits(tensors(photos.calibration, source.input))
    golden = golden_images(spec.geometry, photos.calibration, logits)
    answers = contract_builder.reference_answers(source, golden)
    found = golden_set(read_content(path), contract, golden, answers)
    assert bool(found.exact.size) is exact
    assert len(inexact_note(contract, found)) == (not exact)
    path.write_bytes(seal("tflite", made.content, contract, found))
    assert np.array_equal(read_artefact(path).golden.exact, found.exact)
    stages = {stage.name: stage for stage in verify(path, EngineOptions())}
    assert all(stage.passed for stage in stages.values())
    assert stages["exact"].detail.startswith("reference kernels" if exact else "skipped")
