"""`kedge convert` seals a sketch into each artefact where the images are the user's own."""

from pathlib import Path

import numpy as np

from conftest import Run
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.field.sketch import LEAST

# Random weights: integers may miss the agreement that is asked of others.
WORDS = ["--preprocess", "imagenet", "--normalisation", "tf", "--min-agreement", "0.6"]


def convert(kedge: Run, model: Path, images: Path, out: Path, counts: str, to: str) -> str:
    """Convert; return all that is said."""
    labels = ["--labels", model.with_name("labels.txt"), "--to", to]
    places = ["--calibrate", images, "--out", out]
    code, said, err = kedge("convert", model, *WORDS, *places, *labels, *counts.split())
    assert code == 0, err
    return said + err


def test_a_conversion_with_images_seals_a_sketch(
    tiny_model: Path, pictures: Path, tmp_path: Path, kedge: Run
) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for out in folders:
        counts = "--calibrate-count 25 --check-count 15"
        convert(kedge, tiny_model, pictures, out, counts, "tflite:int8,onnx:float32")
    one, two = (sorted(folder.iterdir()) for folder in folders)
    assert [path.name for path in one] == ["tiny.float32.onnx", "tiny.int8.tflite"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    for path in one:
        sketch = read_artefact(path).sketch
        assert sketch is not None
        assert sketch.images == 40
        # No folder and no name tells the class of these images.
        assert np.isnan(sketch.accuracy[1])
        code, said, _ = kedge("drift", path, "--field", pictures)
        # Sorted by class, so that there may be a notice about the mix.
        assert (code, "last 40 images" in said) == (0, True)
        assert kedge("verify", path)[0] == 0


def test_too_few_images_for_a_sketch_are_noted(
    tiny_model: Path, pictures: Path, tmp_path: Path, kedge: Run
) -> None:
    counts = f"--calibrate-count 10 --check-count {LEAST - 11}"
    said = convert(kedge, tiny_model, pictures, tmp_path, counts, "onnx:float32")
    assert "no sketch for `kedge drift --field`: it takes at least 20 images" in said
    (path,) = tmp_path.iterdir()
    assert read_artefact(path).sketch is None
