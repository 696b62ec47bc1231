"""The demo: a small classifier of pictograms, so that everything can be tried offline in a minute.

It is a demo and nothing else: a MobileNet (alpha 0.25, 96x96 pixels, RGB, each byte / 127.5 - 1)
which `train.py` trains on pictures that `pictograms.py` renders. Its accuracy says how faithful a
conversion is; it says nothing about photos.
"""

from pathlib import Path

from kedge_models.demo.shapes import SHAPES
from kedge_runtime.contract import Label

MODEL = Path(__file__).parent / "demo.keras"
"""The trained model: float32 pictures (n, 96, 96, 3) to softmax (n, 10), in the order of LABELS."""

SAMPLES = Path(__file__).parent / "samples"
"""A folder of rendered JPEG pictures, named `<label's name>_<number>.jpg`."""

LABELS = tuple(Label(id=f"demo-{name}", name=name) for name in SHAPES)
"""The ten classes, in the order of the model's output."""
