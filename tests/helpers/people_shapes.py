"""Which net is saved by which program in which container, and fed by which pipeline."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import people_layers as layers
import people_nets as nets
import people_tfmot as tfmot
from people_files import FLOAT
from people_nets import Shape
from people_pixels import Kit, Pixels

Build = Callable[[Kit, Shape], Any]


@dataclass(frozen=True)
class Saved:
    """A net, `build(kit, shape)`, with what is said of it.

    `files`: `program:container,container ...`. `kind`: what its numbers are. `output`: the wanted
    one of several. `wrap`, `strip`: before training and before saving. `limit`: of the difference
    in probability. `rate`: of learning.
    """

    build: Build
    pixels: Pixels
    files: str
    kind: str = "softmax"
    output: str | None = None
    wrap: Callable[[Kit, Any], Any] = lambda kit, model: model
    strip: Callable[[Kit, Any], Any] = lambda kit, model: model
    limit: float = FLOAT
    rate: float = 0.01

    def containers(self, program: str) -> list[str]:
        """Return the containers that a program is to save it in."""
        parts = (part.partition(":") for part in self.files.split())
        return [each for name, _, kinds in parts if name == program for each in kinds.split(",")]


GREY = (28, 28)
RAW_DATASET, UNIT_DATASET = Pixels("image_dataset"), Pixels("image_dataset", "unit")
UNIT_LOADED, TF_LOADED = Pixels("load_img", "unit"), Pixels("load_img", "tf")
FLOW, TF_RESIZE = Pixels("flow_from_directory", "unit"), Pixels("tf_resize", "unit")
PILLOW = Pixels("pillow", "unit")
DIGITS = Pixels("load_img", "unit", "grey", GREY)
DIGITS_OF_ONE_CHANNEL = Pixels("load_img", "unit", "grey", (*GREY, 1))

SHAPES: dict[str, Saved] = {
    "flat": Saved(
        nets.flat,
        UNIT_LOADED,
        "tf2.12:h5,keras,json,saved tf_keras:keras jax:keras,h5 torch:keras",
    ),
    "flat_input": Saved(nets.flat_input, FLOW, "tf2.15:keras tf_keras:h5 keras3:h5"),
    "residual": Saved(
        nets.residual,
        PILLOW,
        "tf2.15:h5 tf_keras:json keras3:saved jax:json",
    ),
    "transfer_functional": Saved(
        nets.transfer_functional,
        TF_LOADED,
        "tf2.12:h5,keras tf2.15:h5,keras,json,saved tf_keras:keras keras3:h5,keras jax:keras",
    ),
    "transfer_sequential": Saved(
        nets.transfer_sequential, FLOW, "tf2.12:json tf2.15:h5,keras tf_keras:h5 keras3:h5"
    ),
    "frozen_application": Saved(nets.frozen_application, TF_LOADED, "tf2.12:h5 tf_keras:saved"),
    "cut_application": Saved(nets.cut_application, TF_RESIZE, "tf2.12:json tf2.15:h5"),
    "sequential_in_functional": Saved(
        nets.sequential_in_functional, UNIT_DATASET, "tf2.12:h5 tf2.15:keras tf_keras:json"
    ),
    "three_deep": Saved(nets.three_deep, UNIT_DATASET, "tf2.12:keras tf2.15:h5 keras3:saved"),
    "tutorial_transfer": Saved(
        nets.tutorial_transfer,
        RAW_DATASET,
        "tf2.12:h5,keras tf2.15:h5,saved tf_keras:h5 keras3:keras,saved",
        kind="sigmoid",
    ),
    "tutorial_classification": Saved(
        nets.tutorial_classification,
        RAW_DATASET,
        "tf2.12:h5 tf2.15:keras keras3:keras,saved",
        kind="logits",
    ),
    "teachable_machine": Saved(
        nets.teachable_machine,
        Pixels("teachable_machine", shape=(48, 48, 3)),
        "tf2.12:h5 tf2.15:h5 tf_keras:h5",
    ),
    "augmented": Saved(
        nets.augmented, RAW_DATASET, "tf2.12:h5 tf2.15:keras,saved keras3:keras,saved"
    ),
    "augmented_more": Saved(nets.augmented_more, RAW_DATASET, "keras3:keras"),
    "random_sizes": Saved(nets.random_sizes, RAW_DATASET, "tf2.12:h5"),
    "noisy": Saved(nets.noisy, UNIT_LOADED, "tf2.12:keras tf2.15:h5"),
    "digits": Saved(
        layers.digits, DIGITS_OF_ONE_CHANNEL, "tf2.12:json tf2.15:keras jax:keras", rate=0.005
    ),
    "digits_rescaled": Saved(
        layers.digits_rescaled,
        Pixels("image_dataset", None, "grey", (28, 28, 1)),
        "tf2.15:saved keras3:keras",
    ),
    "digits_flattened": Saved(
        layers.digits_flattened, DIGITS, "tf2.12:h5 tf2.15:keras", rate=0.002
    ),
    "digits_in_a_row": Saved(
        layers.digits_in_a_row,
        Pixels("load_img", "unit", "grey", (784,)),
        "tf2.12:h5 keras3:keras",
        rate=0.01,
    ),
    "digits_reshaped": Saved(layers.digits_reshaped, DIGITS, "tf2.15:h5 tf_keras:keras"),
    "two_outputs": Saved(
        layers.two_outputs, RAW_DATASET, "tf2.12:h5 tf2.15:keras,saved keras3:keras", output="kind"
    ),
    "multi_label": Saved(
        layers.multi_label, TF_LOADED, "tf2.12:saved tf2.15:h5 keras3:keras", kind="sigmoid"
    ),
    "single_sigmoid": Saved(
        layers.single_sigmoid, UNIT_LOADED, "tf2.12:h5 tf_keras:keras", kind="sigmoid"
    ),
    "depthwise": Saved(layers.depthwise, TF_RESIZE, "tf2.15:json keras3:json"),
    "separable": Saved(layers.separable, UNIT_LOADED, "tf2.12:h5"),
    "transposed": Saved(layers.transposed, UNIT_LOADED, "tf2.12:keras"),
    "rectifiers": Saved(layers.rectifiers, FLOW, "tf2.15:keras"),
    "smooth": Saved(layers.smooth, UNIT_LOADED, "tf2.12:h5"),
    "hard": Saved(layers.hard, TF_LOADED, "tf2.12:keras keras3:keras"),
    "layer_norm": Saved(layers.layer_norm, UNIT_DATASET, "tf2.12:h5"),
    "squeeze_excite": Saved(layers.squeeze_excite, PILLOW, "tf2.12:h5"),
    "shared": Saved(layers.shared, UNIT_LOADED, "tf2.12:h5 tf2.15:keras keras3:keras", rate=0.004),
    "branches": Saved(layers.branches, UNIT_LOADED, "tf2.15:keras", rate=0.002),
    "borders": Saved(layers.borders, UNIT_LOADED, "tf2.15:json"),
    "slashes": Saved(layers.slashes, UNIT_LOADED, "tf2.12:h5 tf_keras:keras"),
    "mixed_float16": Saved(layers.mixed_float16, RAW_DATASET, "tf2.12:h5 keras3:keras", limit=1e-2),
    "operators": Saved(layers.operators, RAW_DATASET, "tf2.12:h5 tf2.15:json keras3:keras"),
    "caffe_inside": Saved(layers.caffe_inside, RAW_DATASET, "tf2.12:h5 tf2.15:saved"),
    "caffe_outside": Saved(nets.transfer_functional, Pixels("load_img", "caffe"), "tf2.15:h5"),
    "torch_outside": Saved(nets.transfer_functional, Pixels("load_img", "torch"), "tf2.15:keras"),
    "opencv_bgr": Saved(nets.flat, Pixels("opencv", "unit", "bgr"), "tf_keras:h5 keras3:keras"),
    "hub_pixels": Saved(nets.flat, Pixels("tf_hub"), "tf2.15:h5 tf_keras:h5"),
    "regularised": Saved(layers.regularised, UNIT_LOADED, "tf2.15:keras"),
    "resizing": Saved(layers.resizing, RAW_DATASET, "tf2.12:h5 keras3:keras"),
    "normalization": Saved(layers.normalization, RAW_DATASET, "tf2.15:keras keras3:keras"),
    "attention": Saved(layers.attention, RAW_DATASET, "tf2.15:keras keras3:keras"),
    "mixer": Saved(layers.mixer, UNIT_LOADED, "tf2.12:h5 jax:h5"),
    "lambda": Saved(layers.a_lambda, RAW_DATASET, "tf2.15:saved keras3:saved"),
    "functional_head": Saved(layers.functional_head, TF_LOADED, "tf2.12:h5"),
    "pruned_wrapped": Saved(nets.flat, UNIT_LOADED, "tfmot:h5", wrap=tfmot.pruned),
    "pruned": Saved(
        nets.flat, UNIT_LOADED, "tfmot:h5,keras", wrap=tfmot.pruned, strip=tfmot.stripped
    ),
    "quantised": Saved(
        nets.residual, UNIT_LOADED, "tfmot:h5,saved", wrap=tfmot.quantised, limit=0.1
    ),
}
