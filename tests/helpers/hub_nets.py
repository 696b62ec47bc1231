"""Small image classifiers of keras_hub, with random weights, and the preprocessors that they have.

    python tests/helpers/hub_nets.py

writes `models/hub/vit_tiny.keras`; it needs `keras-kedge[hub]`.
"""

import warnings
import zipfile
from pathlib import Path
from typing import Any

SEED, CLASSES, SIDE = 5, 10, 32
SHAPE = (SIDE, SIDE, 3)
COMMITTED = Path(__file__).parents[1] / "models" / "hub" / "vit_tiny.keras"


def converter(**words: Any) -> Any:
    """Return keras_hub's ImageConverter for the nets' size; `words` go before what is usual."""
    import keras_hub

    usual = {"image_size": (SIDE, SIDE), "scale": 1 / 127.5, "offset": -1.0}
    return keras_hub.layers.ImageConverter(**usual | words)


def build(name: str, preprocessor: Any = None, **words: Any) -> Any:
    """Return a classifier of NETS; `words` are ImageClassifier's own."""
    import keras
    import keras_hub

    keras.utils.set_random_seed(SEED)
    kind, arguments = NETS[name]
    task = getattr(keras_hub.models, f"{kind}ImageClassifier")
    with warnings.catch_warnings():
        # Of Swin's own layers: masks that none of them uses.
        warnings.simplefilter("ignore")
        backbone = getattr(keras_hub.models, f"{kind}Backbone")(**arguments)
        model = task(backbone=backbone, num_classes=CLASSES, preprocessor=preprocessor, **words)
    for weight in model.trainable_variables:
        # Else hardly anything of an image is left behind MobileNet's thin layers; Xception's many
        # would grow out of a softmax's range.
        if len(weight.shape) == 4 and name != "xception":
            weight.assign(weight * 3)
    return model


def preprocessed(name: str, **words: Any) -> Any:
    """Return a classifier with its own preprocessor around `converter(**words)`."""
    import keras_hub

    kind, _ = NETS[name]
    own = getattr(keras_hub.models, f"{kind}ImageClassifierPreprocessor")
    return build(name, own(image_converter=converter(**words)))


# fmt: off
NETS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", {
        "image_shape": SHAPE, "patch_size": (8, 8), "num_layers": 2, "num_heads": 2,
        "hidden_dim": 16, "mlp_dim": 32,
    }),
    "vit_tiny": ("ViT", {
        "image_shape": SHAPE, "patch_size": (16, 16), "num_layers": 1, "num_heads": 1,
        "hidden_dim": 4, "mlp_dim": 4,
    }),
    "deit": ("DeiT", {
        "image_shape": SHAPE, "patch_size": (8, 8), "num_layers": 2, "num_heads": 2,
        "hidden_dim": 16, "intermediate_dim": 32,
    }),
    "swin": ("SwinTransformer", {
        "image_shape": SHAPE, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2),
        "window_size": 4,
    }),
    "mit": ("MiT", {
        "layerwise_depths": [1, 1], "num_layers": 2, "layerwise_num_heads": [1, 2],
        "layerwise_sr_ratios": [2, 1], "max_drop_path_rate": 0.1,
        "layerwise_patch_sizes": [7, 3], "layerwise_strides": [4, 2], "hidden_dims": [8, 16],
        "image_shape": SHAPE,
    }),
    "resnet": ("ResNet", {
        "input_conv_filters": [64], "input_conv_kernel_sizes": [3],
        "stackwise_num_filters": [64, 64], "stackwise_num_blocks": [1, 1],
        "stackwise_num_strides": [1, 2], "block_type": "basic_block", "image_shape": SHAPE,
    }),
    "resnet_open": ("ResNet", {
        "input_conv_filters": [64], "input_conv_kernel_sizes": [3],
        "stackwise_num_filters": [64, 64], "stackwise_num_blocks": [1, 1],
        "stackwise_num_strides": [1, 2], "block_type": "bottleneck_block",
        "use_pre_activation": True,
    }),
    "mobilenet": ("MobileNet", {
        "stackwise_expansion": [[16, 24], [32]], "stackwise_num_blocks": [2, 1],
        "stackwise_num_filters": [[8, 12], [16]], "stackwise_kernel_size": [[3, 3], [5]],
        "stackwise_num_strides": [[2, 1], [2]], "stackwise_se_ratio": [[None, None], [0.25]],
        "stackwise_activation": [["relu", "relu"], ["hard_swish"]],
        "stackwise_padding": [[1, 1], [2]], "output_num_filters": 32,
        "input_activation": "hard_swish", "output_activation": "hard_swish",
        "input_num_filters": 8, "image_shape": SHAPE, "depthwise_filters": 8,
        "depthwise_stride": 1, "depthwise_residual": False,
        "squeeze_and_excite": 0.5, "last_layer_filter": 32,
    }),
    "efficientnet": ("EfficientNet", {
        "stackwise_kernel_sizes": [3, 3, 3], "stackwise_num_repeats": [1, 1, 1],
        "stackwise_input_filters": [8, 8, 16], "stackwise_output_filters": [8, 16, 16],
        "stackwise_expansion_ratios": [1, 4, 4],
        "stackwise_squeeze_and_excite_ratios": [0.0, 0.25, 0.25],
        "stackwise_strides": [1, 2, 1], "stackwise_block_types": ["fused", "unfused", "unfused"],
        "stackwise_width_coefficients": [1.0] * 3, "stackwise_depth_coefficients": [1.0] * 3,
        "input_shape": SHAPE,
    }),
    "densenet": ("DenseNet", {
        "stackwise_num_repeats": [2, 2], "growth_rate": 4, "image_shape": SHAPE,
    }),
    "cspnet": ("CSPNet", {
        "stem_filters": 8, "stem_kernel_size": 3, "stem_strides": 1, "stackwise_depth": [1, 1],
        "stackwise_strides": [1, 2], "stackwise_num_filters": [8, 16],
        "block_type": "dark_block", "stage_type": "dark", "image_shape": SHAPE,
    }),
    "hgnet": ("HGNetV2", {
        "depths": [1, 1], "embedding_size": 8, "hidden_sizes": [16, 16],
        "stem_channels": [3, 8, 8], "hidden_act": "relu", "use_learnable_affine_block": False,
        "stackwise_stage_filters": [(8, 8, 16, 1, 1, 3), (16, 8, 16, 1, 1, 3)],
        "apply_downsample": [False, True], "use_lightweight_conv_block": [False, False],
        "image_shape": SHAPE,
    }),
    "vgg": ("VGG", {
        "stackwise_num_repeats": [1, 1], "stackwise_num_filters": [8, 16], "image_shape": SHAPE,
    }),
    "xception": ("Xception", {
        "stackwise_conv_filters": [[8, 8], [16, 16], [16, 16]],
        "stackwise_pooling": [True, True, False], "image_shape": SHAPE,
    }),
}
# fmt: on


def main() -> None:
    COMMITTED.parent.mkdir(exist_ok=True)
    preprocessed("vit_tiny").save(COMMITTED)
    with zipfile.ZipFile(COMMITTED) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    # Keras stores HDF5's empty space as it is.
    with zipfile.ZipFile(COMMITTED, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


if __name__ == "__main__":
    main()
