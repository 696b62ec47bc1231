"""Fine-tune a Keras application on a folder of images, one folder a class, as Keras's guide does.

    python examples/finetune.py flowers/ flowers.keras

Nothing here knows of kedge: any script that ends in `model.save` will do. Augmentation and
preprocessing lie inside the model, so `kedge convert --preprocess image_dataset` needs no more.
"""

import argparse

import keras
from keras import layers

SIZE = (160, 160)


def main() -> None:
    """Train the head of a MobileNetV2 whose own weights stay as they are."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", help="folder with one folder of images for each class")
    parser.add_argument("model", help="file to write, as flowers.keras")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--weights", default="imagenet", help="a file, or what Keras downloads")
    options = parser.parse_args()
    training, validation = keras.utils.image_dataset_from_directory(
        options.images, image_size=SIZE, validation_split=0.2, subset="both", seed=1
    )
    model = classifier(len(training.class_names), options.weights)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(training, validation_data=validation, epochs=options.epochs, verbose=2)
    model.save(options.model)


def classifier(classes: int, weights: str) -> keras.Model:
    """Return a model from pixels, 0 to 255, to the probabilities of the classes."""
    base = keras.applications.MobileNetV2((*SIZE, 3), include_top=False, weights=weights)
    base.trainable = False
    image = keras.Input((*SIZE, 3))
    x = layers.RandomFlip("horizontal")(image)
    x = layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = layers.GlobalAveragePooling2D()(base(x, training=False))
    x = layers.Dropout(0.2)(x)
    return keras.Model(image, layers.Dense(classes, activation="softmax")(x))


if __name__ == "__main__":
    main()
