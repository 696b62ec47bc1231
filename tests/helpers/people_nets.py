"""Small nets in the shapes that people have on disk: nested, augmented, from the tutorials.

Each function takes a Kit and the shape of one input and returns a model; the code is as its author
would write it, for Keras 2 and 3 alike.
"""

from collections.abc import Sequence
from typing import Any

from people_images import CLASSES
from people_pixels import Kit

Shape = tuple[int, ...]
COUNT = len(CLASSES)


def flat(kit: Kit, shape: Shape) -> Any:
    """A Sequential whose first layer says what it takes."""
    layers = kit.keras.layers
    first = [kit.keras.Input(shape)] if kit.is_keras_3 else []
    says: dict[str, Any] = {} if kit.is_keras_3 else {"input_shape": shape}
    return kit.keras.Sequential(
        [
            *first,
            layers.Conv2D(8, 3, activation="relu", **says),
            layers.MaxPooling2D(),
            layers.Conv2D(12, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.GlobalAveragePooling2D(),
            layers.Dense(COUNT, activation="softmax"),
        ]
    )


def flat_input(kit: Kit, shape: Shape) -> Any:
    """A Sequential with an Input, batch norms, Flatten and a softmax layer of its own."""
    layers = kit.keras.layers
    model = kit.keras.Sequential()
    model.add(kit.keras.Input(shape))
    model.add(layers.Conv2D(6, 3, strides=2, use_bias=False))
    model.add(layers.BatchNormalization())
    model.add(layers.Activation("relu"))
    model.add(layers.AveragePooling2D(3))
    model.add(layers.Flatten())
    model.add(layers.Dropout(0.3))
    model.add(layers.Dense(COUNT))
    model.add(layers.Softmax())
    return model


def residual(kit: Kit, shape: Shape) -> Any:
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    for _ in range(2):
        branch = layers.Conv2D(8, 3, padding="same", use_bias=False)(value)
        branch = layers.BatchNormalization()(branch)
        value = layers.Activation("relu")(layers.Add()([value, branch]))
    return _classified(kit, image, value)


def base(kit: Kit, shape: Shape, name: str = "mobile_base") -> Any:
    """A trunk of MobileNet's kind as a Functional model of its own."""
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False, name="Conv1")(image)
    value = layers.BatchNormalization(name="bn_Conv1")(value)
    value = layers.ReLU(6.0, name="Conv1_relu")(value)
    for number, filters in enumerate((10, 14)):
        value = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"block_{number}_pad")(value)
        value = layers.DepthwiseConv2D(3, strides=2, use_bias=False, name=f"depth_{number}")(value)
        value = layers.BatchNormalization(name=f"depth_{number}_bn")(value)
        value = layers.ReLU(6.0, name=f"depth_{number}_relu")(value)
        value = layers.Conv2D(filters, 1, use_bias=False, name=f"project_{number}")(value)
        value = layers.BatchNormalization(name=f"project_{number}_bn")(value)
    return kit.keras.Model(image, value, name=name)


def transfer_functional(kit: Kit, shape: Shape) -> Any:
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = base(kit, shape)(image, training=False)
    value = layers.GlobalAveragePooling2D()(value)
    value = layers.Dropout(0.2)(value)
    return kit.keras.Model(image, layers.Dense(COUNT, activation="softmax")(value))


def transfer_sequential(kit: Kit, shape: Shape) -> Any:
    layers = kit.keras.layers
    return kit.keras.Sequential(
        [
            base(kit, shape),
            layers.GlobalAveragePooling2D(),
            layers.Dense(16, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(COUNT, activation="softmax"),
        ]
    )


def frozen_application(kit: Kit, shape: Shape) -> Any:
    """A real application, thin, frozen and pooled by itself."""
    trunk = kit.keras.applications.MobileNet(
        input_shape=shape, alpha=0.05, include_top=False, weights=None, pooling="avg"
    )
    layers = kit.keras.layers
    return kit.keras.Sequential([trunk, layers.Dense(COUNT, activation="softmax")])


def cut_application(kit: Kit, shape: Shape) -> Any:
    """An application's graph that goes on in the same Functional: base.input to a new head."""
    trunk = kit.keras.applications.MobileNetV2(
        input_shape=shape, alpha=0.05, include_top=False, weights=None
    )
    value = trunk.get_layer("block_3_expand_relu").output
    value = kit.keras.layers.GlobalAveragePooling2D()(value)
    head = kit.keras.layers.Dense(COUNT, activation="softmax", name="predictions")
    return kit.keras.Model(inputs=trunk.input, outputs=head(value))


def sequential_in_functional(kit: Kit, shape: Shape) -> Any:
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    features = kit.keras.Sequential(
        [kit.keras.Input(shape), *_convolutions(kit, 8, 12)], name="features"
    )
    head = kit.keras.Sequential(
        [layers.Dense(12, activation="relu"), layers.Dense(COUNT, activation="softmax")],
        name="head",
    )
    value = layers.GlobalAveragePooling2D()(features(image))
    return kit.keras.Model(image, head(value))


def three_deep(kit: Kit, shape: Shape) -> Any:
    """A Functional in a Sequential in a Functional, with a residual at each depth."""
    layers = kit.keras.layers
    inside = kit.keras.Input((16, 16, 8))
    convolved = layers.Conv2D(8, 3, padding="same", activation="relu")(inside)
    deepest = kit.keras.Model(inside, layers.add([inside, convolved]), name="deepest")
    middle = kit.keras.Sequential(
        [
            kit.keras.Input(shape),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            deepest,
            layers.Conv2D(8, 1),
        ],
        name="middle",
    )
    image = kit.keras.Input(shape)
    value = middle(image)
    value = layers.add([value, deepest(value)])
    return _classified(kit, image, value)


def tutorial_transfer(kit: Kit, shape: Shape) -> Any:
    """The official transfer-learning tutorial: cats and dogs, with one number as the answer."""
    layers = kit.keras.layers
    data_augmentation = kit.keras.Sequential(
        [layers.RandomFlip("horizontal"), layers.RandomRotation(0.2)]
    )
    preprocess_input = kit.keras.applications.mobilenet_v2.preprocess_input
    base_model = base(kit, shape)
    inputs = kit.keras.Input(shape=shape)
    x = data_augmentation(inputs)
    x = preprocess_input(x)
    x = base_model(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    return kit.keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))


def tutorial_classification(kit: Kit, shape: Shape) -> Any:
    """The official image-classification tutorial: flowers, with logits as the answer."""
    layers = kit.keras.layers
    says: dict[str, Any] = {} if kit.is_keras_3 else {"input_shape": shape}
    data_augmentation = kit.keras.Sequential(
        [
            *([kit.keras.Input(shape)] if kit.is_keras_3 else []),
            layers.RandomFlip("horizontal", **says),
            layers.RandomRotation(0.1),
            layers.RandomZoom(0.1),
        ]
    )
    return kit.keras.Sequential(
        [
            data_augmentation,
            layers.Rescaling(1.0 / 255),
            layers.Conv2D(6, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(COUNT, name="outputs"),
        ]
    )


def teachable_machine(kit: Kit, shape: Shape) -> Any:
    """What Teachable Machine exports: a Sequential of two, the first around MobileNet's trunk."""
    layers = kit.keras.layers
    trunk = base(kit, shape, "model1")
    first = kit.keras.Sequential([trunk, layers.GlobalAveragePooling2D()], name="sequential_1")
    second = kit.keras.Sequential(
        [
            layers.Dense(16, activation="relu", name="dense_Dense1"),
            layers.Dense(COUNT, activation="softmax", use_bias=False, name="dense_Dense2"),
        ],
        name="sequential_3",
    )
    return kit.keras.Sequential([first, second], name="sequential_4")


def augmented(kit: Kit, shape: Shape) -> Any:
    """Every Random* layer that all versions have, in the model itself."""
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    augmentations = [
        layers.RandomFlip("horizontal_and_vertical"),
        layers.RandomRotation(0.1, fill_mode="nearest"),
        layers.RandomZoom(0.1, 0.1),
        layers.RandomTranslation(0.1, 0.1),
        layers.RandomContrast(0.1),
        layers.RandomBrightness(0.1),
    ]
    value = image
    for layer in augmentations:
        value = layer(value)
    value = layers.RandomCrop(shape[0] - 4, shape[1] - 4)(value)
    value = layers.Rescaling(1 / 127.5, offset=-1)(value)
    return _convolved(kit, image, value)


def augmented_more(kit: Kit, shape: Shape) -> Any:
    """The random layers that Keras 3 added."""
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    names = (
        "RandomHue RandomSaturation RandomSharpness RandomShear RandomGrayscale RandomPosterization"
        " RandomColorJitter RandomColorDegeneration RandomErasing RandomPerspective"
        " RandomGaussianBlur"
    )
    value = image
    for name in names.split():
        value = _random(layers, name)(value)
    return _convolved(kit, image, layers.Rescaling(1 / 255)(value))


def _random(layers: Any, name: str) -> Any:
    layer = getattr(layers, name)
    if name == "RandomPosterization":
        return layer(factor=7)
    if name == "RandomColorJitter":
        return layer(value_range=(0, 255))
    if name == "RandomSaturation":
        return layer((0.4, 0.6))
    # Keras 3.15 can't read its own shear of one number: it saves a range below 0.
    return layer((0.0, 0.1)) if name == "RandomShear" else layer(0.1)


def random_sizes(kit: Kit, shape: Shape) -> Any:
    """Keras 2's RandomHeight and RandomWidth, which leave no size behind them."""
    layers = kit.keras.layers
    return kit.keras.Sequential(
        [
            kit.keras.Input(shape),
            layers.RandomHeight(0.2),
            layers.RandomWidth(0.2),
            layers.Rescaling(1 / 255),
            *_convolutions(kit, 8, 12),
            layers.GlobalMaxPooling2D(),
            layers.Dense(COUNT, activation="softmax"),
        ]
    )


def noisy(kit: Kit, shape: Shape) -> Any:
    """Layers that act in training only."""
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = layers.GaussianNoise(0.1)(image)
    value = layers.Conv2D(8, 3, strides=2, activation="selu")(value)
    value = layers.AlphaDropout(0.1)(value)
    value = layers.SpatialDropout2D(0.1)(value)
    value = layers.Conv2D(12, 3, activation="relu")(value)
    value = layers.GaussianDropout(0.1)(value)
    value = layers.ActivityRegularization(l2=1e-4)(value)
    return _classified(kit, image, value)


def _convolutions(kit: Kit, *filters: int) -> list[Any]:
    layers = kit.keras.layers
    return [layers.Conv2D(each, 3, strides=2, activation="relu") for each in filters]


def _convolved(kit: Kit, image: Any, value: Any, filters: Sequence[int] = (8, 12)) -> Any:
    for layer in _convolutions(kit, *filters):
        value = layer(value)
    return _classified(kit, image, value)


def _classified(kit: Kit, image: Any, value: Any) -> Any:
    layers = kit.keras.layers
    value = layers.GlobalAveragePooling2D()(value)
    return kit.keras.Model(image, layers.Dense(COUNT, activation="softmax")(value))
