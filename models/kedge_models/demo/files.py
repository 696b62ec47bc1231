"""Where the demo's files lie: the trained model, sample images, and its labels."""

from pathlib import Path

from kedge_models.demo.shapes import SHAPES
from kedge_runtime.artefact.contract import Label

MODEL = Path(__file__).parent / "demo.keras"
"""The trained model: float32 pictures (n, 96, 96, 3) to softmax (n, 10), in the order of LABELS."""

SAMPLES = Path(__file__).parent / "samples"
"""A folder of rendered JPEG pictures, named `<label's name>_<number>.jpg`."""

LABELS = tuple(Label(id=f"demo-{name}", name=name) for name in SHAPES)
"""The ten classes, in the order of the model's output."""
