"""Name the kinds of a contract's parts: geometries, types, precisions, outputs."""

from typing import Final, Literal, get_args

# fmt: off
Resize = Literal[
    "nearest", "bilinear", "pyramid", "area", "tf_bilinear",
    "pillow_bilinear", "pillow_bicubic", "pillow_lanczos", "pillow_box", "pillow_hamming",
]
# fmt: on
Fit = Literal["crop", "stretch", "letterbox", "keras_crop", "pillow_fit", "torchvision_crop"]
PILLOW_RESIZES: Final[tuple[Resize, ...]] = tuple(
    method for method in get_args(Resize) if method.startswith("pillow_")
)
PILLOW_FITS: Final = ("pillow_fit", "torchvision_crop")  # their arithmetic is Pillow's
Colour = Literal["rgb", "bgr", "grey"]
Orientation = Literal["exif", "ignore"]
Layout = Literal["nhwc", "nchw", "nhw", "flat"]
DType = Literal["float32", "float16", "int8", "uint8", "int16"]
# `unknown`: a foreign file, which kedge didn't make.
Precision = Literal["float32", "float16", "dynamic", "int8", "int16x8", "mixed", "unknown"]
Method = Literal["stock", "prepared"]
Kind = Literal["softmax", "logits", "sigmoid", "features"]
Activation = Literal["softmax", "sigmoid"]
