"""Save an application of Keras 2 with given weights: run it with an interpreter that has Keras 2.

    PYTHON benchmarks/keras2_application.py --name MobileNet --alpha .25 --weights W.npz --out M.h5

The weights are those of the same application of Keras 3, in its order (same_network.py writes
them).
"""

import argparse

import numpy as np
import tensorflow as tf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--alpha", type=float)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    wide = {} if given.alpha is None else {"alpha": given.alpha}
    model = getattr(tf.keras.applications, given.name)(weights=None, **wide)
    with np.load(given.weights) as weights:
        model.set_weights([weights[name] for name in weights.files])
    model.save(given.out)


if __name__ == "__main__":
    main()
