"""Small nets for one kind of layer, of head, of input or of saving each. See `people_nets.py`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from people_nets import COUNT, Shape, _classified, _convolved, base
from people_pixels import Kit


def digits(kit: Kit, shape: Shape) -> Any:
    """One channel, as the MNIST example has it."""
    layers = kit.keras.layers
    return kit.keras.Sequential(
        [
            kit.keras.Input(shape),
            layers.Conv2D(8, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Conv2D(8, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(COUNT, activation="softmax"),
        ]
    )


def digits_rescaled(kit: Kit, shape: Shape) -> Any:
    image = kit.keras.Input(shape)
    return _convolved(kit, image, kit.keras.layers.Rescaling(1 / 255)(image))


def digits_flattened(kit: Kit, shape: Shape) -> Any:
    """No channel axis: the beginners' tutorial."""
    layers = kit.keras.layers
    return kit.keras.Sequential(
        [
            kit.keras.Input(shape),
            layers.Flatten(),
            layers.Dense(10, activation="elu"),
            layers.Dropout(0.2),
            layers.Dense(COUNT, activation="softmax"),
        ]
    )


def digits_in_a_row(kit: Kit, shape: Shape) -> Any:
    """784 numbers."""
    layers = kit.keras.layers
    return kit.keras.Sequential(
        [
            kit.keras.Input(shape),
            layers.BatchNormalization(),
            layers.Dense(6, activation="relu"),
            layers.Dense(COUNT, activation="softmax"),
        ]
    )


def digits_reshaped(kit: Kit, shape: Shape) -> Any:
    """No channel axis outside, one inside."""
    image = kit.keras.Input(shape)
    return _convolved(kit, image, kit.keras.layers.Reshape((*shape, 1))(image))


def two_outputs(kit: Kit, shape: Shape) -> Any:
    """A class and a place."""
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = layers.Rescaling(1 / 255)(image)
    value = layers.Conv2D(8, 3, strides=2, activation="relu")(value)
    value = layers.Conv2D(12, 3, strides=2, activation="relu")(value)
    value = layers.GlobalAveragePooling2D()(value)
    place = layers.Dense(4, name="place")(value)
    kind = layers.Dense(COUNT, activation="softmax", name="kind")(value)
    return kit.keras.Model(image, [place, kind])


def multi_label(kit: Kit, shape: Shape) -> Any:
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = layers.Conv2D(8, 3, strides=2, activation="relu")(image)
    value = layers.Conv2D(12, 3, strides=2, activation="relu")(value)
    value = layers.Flatten()(layers.MaxPooling2D()(value))
    return kit.keras.Model(image, layers.Dense(COUNT, activation="sigmoid")(value))


def single_sigmoid(kit: Kit, shape: Shape) -> Any:
    layers = kit.keras.layers
    return kit.keras.Sequential(
        [
            kit.keras.Input(shape),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(1),
            layers.Activation("sigmoid"),
        ]
    )


def depthwise(kit: Kit, shape: Shape) -> Any:
    image = kit.keras.Input(shape)
    return _classified(kit, image, base(kit, shape)(image))


def separable(kit: Kit, shape: Shape) -> Any:
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = layers.SeparableConv2D(8, 3, strides=2, depth_multiplier=2)(image)
    value = layers.BatchNormalization(scale=False)(value)
    value = layers.Activation("relu")(value)
    value = layers.SeparableConv2D(12, 3, padding="same", activation="relu")(value)
    return _classified(kit, image, layers.MaxPooling2D(3, strides=2, padding="same")(value))


def transposed(kit: Kit, shape: Shape) -> Any:
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = layers.Conv2D(8, 3, strides=2, activation="relu", padding="same")(image)
    value = layers.Conv2DTranspose(6, 3, strides=2, padding="same", activation="relu")(value)
    return _convolved(kit, image, value, (8,))


def rectifiers(kit: Kit, shape: Shape) -> Any:
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = layers.LeakyReLU(0.2)(layers.Conv2D(6, 3, strides=2)(image))
    value = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(8, 3)(value))
    value = layers.ELU(0.9)(layers.Conv2D(8, 3, strides=2)(value))
    value = layers.ReLU(6.0, negative_slope=0.1)(layers.Conv2D(8, 1)(value))
    return _classified(kit, image, value)


def smooth(kit: Kit, shape: Shape) -> Any:
    layers, value = kit.keras.layers, (image := kit.keras.Input(shape))
    for name in ("swish", "gelu", "softplus", "tanh"):
        value = layers.Conv2D(6, 3, strides=1 + (name == "swish"), activation=name)(value)
    return _classified(kit, image, value)


def hard(kit: Kit, shape: Shape) -> Any:
    """hard_sigmoid by name, and the hard swish that people write themselves."""
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = layers.Conv2D(8, 3, strides=2)(image)
    value = value * layers.ReLU(6.0)(value + 3.0) * (1.0 / 6.0)
    value = layers.Conv2D(8, 3, strides=2, activation="hard_sigmoid")(value)
    return _classified(kit, image, value)


def layer_norm(kit: Kit, shape: Shape) -> Any:
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = layers.Conv2D(8, 4, strides=4)(image)
    value = layers.LayerNormalization(epsilon=1e-6)(value)
    branch = layers.DepthwiseConv2D(5, padding="same")(value)
    branch = layers.LayerNormalization(epsilon=1e-6)(branch)
    branch = layers.Dense(16, activation="gelu")(branch)
    value = layers.Add()([value, layers.Dense(8)(branch)])
    return _classified(kit, image, value)


def squeeze_excite(kit: Kit, shape: Shape) -> Any:
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = layers.Conv2D(8, 3, strides=2, activation="swish")(image)
    scale = layers.GlobalAveragePooling2D()(value)
    scale = layers.Reshape((1, 1, 8))(scale)
    scale = layers.Conv2D(4, 1, activation="relu")(scale)
    scale = layers.Conv2D(8, 1, activation="sigmoid")(scale)
    return _convolved(kit, image, layers.Multiply()([value, scale]), (12,))


def shared(kit: Kit, shape: Shape) -> Any:
    """One layer and one model, each called twice."""
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    convolution = layers.Conv2D(8, 3, padding="same", activation="relu")
    value = convolution(convolution(layers.Conv2D(8, 3, strides=2)(image)))
    inside = kit.keras.Input((15, 15, 8))
    block = kit.keras.Model(inside, layers.Conv2D(8, 3, padding="same")(inside), name="block")
    value = layers.Activation("relu")(layers.Add()([block(value), block(block(value))]))
    return _classified(kit, image, value)


def branches(kit: Kit, shape: Shape) -> Any:
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    stem = layers.Conv2D(6, 3, strides=2, activation="relu")(image)
    one, two, three = (layers.Conv2D(4, each, padding="same")(stem) for each in (1, 3, 5))
    value = layers.Concatenate()([one, two, layers.MaxPooling2D(3, 1, padding="same")(stem)])
    other = layers.Concatenate(axis=-1)([layers.Average()([one, two]), three])
    value = layers.Concatenate()([value, other, layers.Maximum()([one, three])])
    value = layers.Concatenate()([value, layers.Subtract()([two, three])])
    return _convolved(kit, image, value, (8,))


def borders(kit: Kit, shape: Shape) -> Any:
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = layers.ZeroPadding2D(((1, 2), (0, 3)))(image)
    value = layers.Conv2D(6, 3, strides=2, activation="relu")(value)
    value = layers.UpSampling2D(2, interpolation="bilinear")(value)
    value = layers.Cropping2D(((2, 1), (1, 2)))(value)
    return _convolved(kit, image, layers.UpSampling2D(2)(value))


def slashes(kit: Kit, shape: Shape) -> Any:
    layers, image = kit.keras.layers, kit.keras.Input(shape, name="in/image")
    value = layers.Conv2D(8, 3, strides=2, name="stem/conv")(image)
    value = layers.BatchNormalization(name="stem/conv/bn")(value)
    value = layers.Conv2D(8, 3, strides=2, activation="relu", name="block/1/conv")(value)
    value = layers.GlobalAveragePooling2D(name="top/pool")(value)
    return kit.keras.Model(
        image, layers.Dense(COUNT, activation="softmax", name="top/dense")(value)
    )


@contextmanager
def policy(kit: Kit, name: str) -> Iterator[None]:
    kit.keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        kit.keras.mixed_precision.set_global_policy("float32")


def mixed_float16(kit: Kit, shape: Shape) -> Any:
    layers = kit.keras.layers
    with policy(kit, "mixed_float16"):
        image = kit.keras.Input(shape)
        value = layers.Rescaling(1 / 255)(image)
        value = layers.Conv2D(8, 3, strides=2, activation="relu")(value)
        value = layers.BatchNormalization()(layers.Conv2D(12, 3, strides=2)(value))
        value = layers.Dense(COUNT)(layers.GlobalAveragePooling2D()(value))
        softmax = layers.Activation("softmax", dtype="float32", name="predictions")
        return kit.keras.Model(image, softmax(value))


def operators(kit: Kit, shape: Shape) -> Any:
    """Arithmetic on tensors, outside any layer."""
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = image / 127.5 - 1.0
    value = layers.Conv2D(8, 3, strides=2)(value)
    value = _function(kit, "relu")(value) + 0.1 * value
    value = _function(kit, "concat")([value, -value])
    return _convolved(kit, image, value, (8,))


def _function(kit: Kit, name: str) -> Any:
    if kit.is_keras_3:
        ops = kit.keras.ops
        return ops.relu if name == "relu" else lambda values: ops.concatenate(values, axis=-1)
    return kit.tf.nn.relu if name == "relu" else lambda values: kit.tf.concat(values, axis=-1)


def caffe_inside(kit: Kit, shape: Shape) -> Any:
    """ResNet50's preprocess_input in the graph: BGR less the mean."""
    image = kit.keras.Input(shape)
    value = kit.keras.applications.resnet50.preprocess_input(image)
    return _convolved(kit, image, value * (1 / 64))


def regularised(kit: Kit, shape: Shape) -> Any:
    """Arguments that matter in training only, groups and dilation."""
    keras, layers, image = kit.keras, kit.keras.layers, kit.keras.Input(shape)
    l2, norm = keras.regularizers.l2(1e-4), keras.constraints.max_norm(3)
    value = layers.Conv2D(
        8, 3, strides=2, kernel_regularizer=l2, kernel_initializer="he_normal", activation="relu"
    )(image)
    value = layers.Conv2D(8, 3, dilation_rate=2, kernel_constraint=norm, activation="relu")(value)
    value = layers.Conv2D(8, 3, bias_initializer=keras.initializers.Constant(0.1))(value)
    value = layers.Flatten()(layers.MaxPooling2D(3)(value))
    last = layers.Dense(COUNT, activation="softmax", activity_regularizer="l2")
    return keras.Model(image, last(value))


def resizing(kit: Kit, shape: Shape) -> Any:
    """A net that makes its images smaller itself."""
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = layers.Rescaling(1 / 255)(layers.Resizing(24, 24)(image))
    return _convolved(kit, image, value)


def normalization(kit: Kit, shape: Shape) -> Any:
    """A Normalization layer with the mean and variance of the training images."""
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    mean, variance = (120.0, 118.0, 122.0), (3100.0, 2900.0, 3000.0)
    value = layers.Normalization(axis=-1, mean=mean, variance=variance)(image)
    return _convolved(kit, image, value)


def attention(kit: Kit, shape: Shape) -> Any:
    """A vision transformer of one block."""
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = layers.Conv2D(12, 8, strides=8)(layers.Rescaling(1 / 255)(image))
    value = layers.Reshape((16, 12))(value)
    normal = layers.LayerNormalization(epsilon=1e-6)(value)
    value = layers.Add()([layers.MultiHeadAttention(2, 6)(normal, normal), value])
    normal = layers.LayerNormalization(epsilon=1e-6)(value)
    value = layers.Add()([layers.Dense(12, activation="gelu")(normal), value])
    value = layers.GlobalAveragePooling1D()(value)
    return kit.keras.Model(image, layers.Dense(COUNT, activation="softmax")(value))


def mixer(kit: Kit, shape: Shape) -> Any:
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    value = layers.Reshape((16, 12))(layers.Conv2D(12, 8, strides=8)(image))
    turned = layers.Dense(16, activation="relu")(layers.Permute((2, 1))(value))
    value = layers.Add()([value, layers.Permute((2, 1))(turned)])
    value = layers.Flatten()(layers.Dense(4)(value))
    return kit.keras.Model(image, layers.Dense(COUNT, activation="softmax")(value))


def a_lambda(kit: Kit, shape: Shape) -> Any:
    layers, image = kit.keras.layers, kit.keras.Input(shape)
    return _convolved(kit, image, layers.Lambda(lambda value: value / 255.0)(image))


def functional_head(kit: Kit, shape: Shape) -> Any:
    """A trunk, and a head with keras.layers functions: flatten, dense by dense, batch norm."""
    layers, trunk = kit.keras.layers, base(kit, shape)
    value = layers.Flatten()(trunk.output)
    value = layers.BatchNormalization()(layers.Dense(12, activation="relu")(value))
    return kit.keras.Model(trunk.input, layers.Dense(COUNT, activation="softmax")(value))
