"""Save a Keras classifier as TF-Hub's image modules are: a SavedModel that knows nothing of Keras.

One signature takes `images`, float32 [n, h, w, 3], and gives logits, or with `--form probabilities`
what softmax makes of them. benchmarks/conversion.py takes the folder as its --model.

    python benchmarks/hub_module.py --model FILE.keras --form logits --out mobilenet_v2_hub_logits
"""

import argparse
from typing import Any

import keras
import tensorflow as tf

from kedge_convert.load import output_activation
from kedge_runtime.output import quiet

FORMS = {"logits": tf.identity, "probabilities": tf.nn.softmax}


class Module(tf.Module):  # type: ignore[misc]
    """The model's graph and variables under one signature."""

    def __init__(self, model: Any, form: str) -> None:
        """Trace the model's graph."""
        super().__init__()
        self.kept = list(model.variables)

        @tf.function(input_signature=[tf.TensorSpec((None, *model.inputs[0].shape[1:]))])  # type: ignore[untyped-decorator]
        def run(images: Any) -> Any:
            return {form: FORMS[form](model(images, training=False))}

        self.run = run


def main() -> None:
    arguments = _arguments()
    with quiet():
        loaded = keras.models.load_model(arguments.model, compile=False)
        module = Module(output_activation.find(loaded).model, arguments.form)
        tf.saved_model.save(module, arguments.out, signatures=module.run)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--form", choices=FORMS, required=True)
    parser.add_argument("--out", required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
