"""What the networks of keras.applications expect their pixels to be, one entry a Keras mode.

Source: keras/src/applications/imagenet_utils.py, `preprocess_input`; there the modes are code, here
they are numbers that travel inside an artefact. Keras computes them step by step in float32, so a
table that does the same, and not in float64, equals it bit for bit. `raw` is what Keras calls no
preprocessing: MobileNetV3, EfficientNet, EfficientNetV2 and ConvNeXt rescale inside the model.
"""

from typing import Final

from kedge_runtime.contract import Normalisation

NORMALISATIONS: Final[dict[str, Normalisation]] = {
    "tf": Normalisation(divisor=127.5, mean=(1.0, 1.0, 1.0)),
    "caffe": Normalisation(colour="bgr", mean=(103.939, 116.779, 123.68)),
    "torch": Normalisation(divisor=255.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "raw": Normalisation(),
}
