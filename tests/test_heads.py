"""Where the logits are: whatever way a classifier ends, softmax runs once, on the device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from kedge_convert.load import output_activation
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Output
from kedge_runtime.artefact.kinds import Activation, Kind
from kedge_runtime.classify.results import ACTIVATIONS
from kedge_runtime.errors import UsageError

CLASSES = 5


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    keras = require("keras")
    keras.utils.set_random_seed(3)
    return keras


def picture(keras: Any) -> Any:
    return keras.Input((8, 9, 3))


def body(keras: Any, image: Any) -> Any:
    features = keras.layers.Conv2D(6, 3, activation="relu")(image)
    return keras.layers.GlobalAveragePooling2D()(features)


def functional(keras: Any, end: Callable[[Any], Any]) -> Any:
    image = picture(keras)
    return keras.Model(image, end(body(keras, image)), name="mine")


def dense(keras: Any, activation: Any = None) -> Any:
    # Large weights: small logits would hide a softmax that is taken twice.
    spread = keras.initializers.RandomNormal(stddev=2.0, seed=4)
    return keras.layers.Dense(CLASSES, activation, kernel_initializer=spread)


def ending(keras: Any, *layers: Any) -> Any:
    def end(tensor: Any) -> Any:
        for layer in layers:
            tensor = layer(tensor)
        return tensor

    return functional(keras, end)


def sequential(keras: Any, *layers: Any) -> Any:
    pooling = [keras.layers.Conv2D(6, 3), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential([picture(keras), *pooling, *layers], name="mine")


def nested(keras: Any, kind: str) -> Any:
    features = keras.Input((6,))
    layer = dense(keras, "softmax")
    inner = keras.Model(features, layer(features)) if kind == "functional" else None
    inner = inner or keras.Sequential([features, layer])
    return ending(keras, inner)


def reshaped(keras: Any) -> Any:
    """End as MobileNet V1 does: a 1x1 convolution, Reshape, Activation."""
    layers = keras.layers
    convolution = layers.Conv2D(CLASSES, 1)
    ends = (layers.Reshape((1, 1, 6)), convolution, layers.Reshape((CLASSES,)))
    return ending(keras, *ends, layers.Activation("softmax"))


def merged(
    keras: Any, merge: Any, activation: Any, units: tuple[int, ...] = (CLASSES, CLASSES), *ends: Any
) -> Any:
    """End in several heads that are joined; `activation` of all, or one of each."""
    each = activation if isinstance(activation, tuple) else (activation,) * len(units)

    def end(tensor: Any) -> Any:
        heads = [
            keras.layers.Dense(count, name, kernel_initializer=keras.initializers.RandomNormal(2.0))
            for count, name in zip(units, each, strict=True)
        ]
        tensor = merge([head(tensor) for head in heads])
        for layer in ends:
            tensor = layer(tensor)
        return tensor

    return functional(keras, end)


def named_ends(keras: Any) -> Any:
    image = keras.Input((8, 9, 3), name="image")
    return keras.Model({"image": image}, {"scores": dense(keras, "softmax")(body(keras, image))})


def linear_named_ends(keras: Any) -> Any:
    image = keras.Input((8, 9, 3), name="image")
    return keras.Model({"image": image}, {"scores": dense(keras)(body(keras, image))})


def second_output(keras: Any) -> Any:
    """End in the second output of a nested model; the first is the larger one's."""
    features = keras.Input((6,))
    two = keras.Model(
        features, [dense(keras, "sigmoid")(features), dense(keras, "softmax")(features)]
    )
    return ending(keras, lambda tensor: two(tensor)[1])


def twice_the_features(keras: Any) -> Any:
    """End in a nested model that takes the features twice."""
    taken = [keras.Input((6,)), keras.Input((6,))]
    inner = keras.Model(taken, dense(keras, "softmax")(keras.layers.Add()(taken)))
    return ending(keras, lambda tensor: inner([tensor, tensor * 2.0]))


def shared(keras: Any, head: Any) -> Any:
    """End in the larger answer of one head to two halves of a picture's features."""

    def end(tensor: Any) -> Any:
        return keras.layers.Maximum()([head(tensor), head(tensor * -1.0)])

    return functional(keras, end)


MODELS: dict[str, Callable[[Any], Any]] = {
    "softmax in Dense": lambda k: ending(k, dense(k, "softmax")),
    "softmax in an Activation": lambda k: ending(k, dense(k), k.layers.Activation("softmax")),
    "a Softmax layer": lambda k: ending(k, dense(k), k.layers.Softmax()),
    "a Softmax layer as activation": lambda k: ending(k, dense(k, k.layers.Softmax())),
    "keras.ops.softmax": lambda k: ending(k, dense(k), k.ops.softmax),
    "sigmoid in Dense": lambda k: ending(k, dense(k, "sigmoid")),
    "keras.ops.sigmoid": lambda k: ending(k, dense(k), k.ops.sigmoid),
    "Sequential": lambda k: sequential(k, dense(k, "softmax")),
    "Sequential, then Softmax": lambda k: sequential(k, dense(k), k.layers.Softmax()),
    "nested Functional": lambda k: nested(k, "functional"),
    "nested Sequential": lambda k: nested(k, "sequential"),
    "convolution, Reshape, Activation": reshaped,
    "softmax, then Reshape": lambda k: ending(k, dense(k, "softmax"), k.layers.Reshape((CLASSES,))),
    "softmax, then Dropout": lambda k: ending(k, dense(k, "softmax"), k.layers.Dropout(0.5)),
    "softmax, then a linear Activation": lambda k: ending(
        k, dense(k, "softmax"), k.layers.Activation("linear")
    ),
    "an input and an output with names": named_ends,
    "sigmoids side by side": lambda k: merged(k, k.layers.Concatenate(), "sigmoid", (2, 3)),
    "the largest of sigmoids": lambda k: merged(k, k.layers.Maximum(), "sigmoid"),
    "the second output of a nested model": second_output,
    "a nested model of two inputs": twice_the_features,
    "one sigmoid layer called twice": lambda k: shared(k, dense(k, "sigmoid")),
    "one nested model of sigmoids called twice": lambda k: shared(
        k, k.Sequential([k.Input((6,)), dense(k, "sigmoid")])
    ),
    "sigmoids side by side, then Dropout": lambda k: merged(
        k, k.layers.Concatenate(), "sigmoid", (4, 1), k.layers.Dropout(0.5)
    ),
}
LINEAR: dict[str, Callable[[Any], Any]] = {
    "Dense": lambda k: ending(k, dense(k)),
    "Sequential": lambda k: sequential(k, dense(k)),
    "a mean of logits": lambda k: merged(k, k.layers.Average(), None),
    "log_softmax": lambda k: ending(k, dense(k), k.ops.log_softmax),
    "an input and an output with names": linear_named_ends,
}


def saved(keras: Any, model: Any, folder: Path) -> Any:
    """Return the model as kedge meets it: loaded from a file."""
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras", compile=False)


def answers(model: Any) -> Any:
    tensor = np.random.default_rng(0).normal(0, 9, (7, 8, 9, 3)).astype(np.float32)
    given = model(tensor)
    return np.asarray(given["scores"] if isinstance(given, dict) else given)


@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match")
@pytest.mark.parametrize("name", MODELS)
def test_the_activation_of_the_new_logits_is_the_old_answer(
    keras: Any, tmp_path: Path, name: str
) -> None:
    model = saved(keras, MODELS[name](keras), tmp_path)
    expected = answers(model)
    head = output_activation.find(model)
    activation: Activation = "sigmoid" if "sigmoid" in name else "softmax"
    assert (head.kind, head.output) == (activation, Output("logits", activation=activation))
    np.testing.assert_allclose(ACTIVATIONS[activation](answers(head.model)), expected, atol=1e-6)
    assert np.abs(answers(head.model) - expected).max() > 0.01
    assert head.model.name == model.name
    assert str(head) == f"{activation}, 5 classes; the device computes the {activation} in float"


@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match")
@pytest.mark.parametrize("name", LINEAR)
def test_logits_stay_as_they_are(keras: Any, tmp_path: Path, name: str) -> None:
    model = saved(keras, LINEAR[name](keras), tmp_path)
    expected = answers(model)
    head = output_activation.find(model)
    assert (head.kind, head.output, str(head)) == ("logits", Output(), "logits, 5 classes")
    np.testing.assert_array_equal(answers(head.model), expected)


# What has no logits: the artefact gives probabilities.
BLENDS: dict[str, tuple[Callable[[Any], Any], Activation]] = {
    "a mean": (lambda k: merged(k, k.layers.Average(), "sigmoid"), "sigmoid"),
    "a product": (lambda k: merged(k, k.layers.Multiply(), "sigmoid"), "sigmoid"),
    "keras.ops": (
        lambda k: merged(k, lambda heads: k.ops.concatenate(heads, axis=-1), "sigmoid", (2, 3)),
        "sigmoid",
    ),
    "a mean of softmaxes": (lambda k: merged(k, k.layers.Average(), "softmax"), "softmax"),
}


@pytest.mark.parametrize("name", BLENDS)
def test_probabilities_of_several_heads_are_shipped_as_they_are(
    keras: Any, tmp_path: Path, name: str
) -> None:
    make, kind = BLENDS[name]
    model = saved(keras, make(keras), tmp_path)
    head = output_activation.find(model)
    assert (head.kind, head.output) == (kind, Output(kind, activation=kind))
    np.testing.assert_array_equal(answers(head.model), answers(model))


UNCLEAR: dict[str, Callable[[Any], Any]] = {
    "a sigmoid beside logits": lambda k: merged(k, k.layers.Concatenate(), ("sigmoid", None)),
    "a sum of sigmoids": lambda k: merged(k, k.layers.Add(), "sigmoid"),
    "softmaxes side by side": lambda k: merged(k, k.layers.Concatenate(), "softmax"),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_heads_whose_sum_nobody_can_tell(keras: Any, name: str) -> None:
    model = UNCLEAR[name](keras)
    with pytest.raises(UsageError, match=r"^its last activation is hidden by .*allowed are"):
        output_activation.find(model)
    assert output_activation.find(model, "logits").kind == "logits"


def test_features_side_by_side_are_features(keras: Any) -> None:
    image = picture(keras)
    body = keras.layers.Conv2D(CLASSES, 3, activation="relu")(image)
    pooled = [keras.layers.GlobalAveragePooling2D(), keras.layers.GlobalMaxPooling2D()]
    joined = keras.layers.Concatenate()([layer(body) for layer in pooled])
    assert output_activation.find(keras.Model(image, joined)).kind == "features"


def single(keras: Any, activation: Any = "sigmoid") -> Any:
    spread = keras.initializers.RandomNormal(seed=5)
    return keras.layers.Dense(
        1, activation, kernel_initializer=spread, bias_initializer=keras.initializers.Constant(0.3)
    )


SINGLES: dict[str, Callable[[Any], Any]] = {
    "Dense": lambda k: ending(k, single(k)),
    "an Activation": lambda k: ending(k, single(k, None), k.layers.Activation("sigmoid")),
    "keras.ops.sigmoid": lambda k: ending(k, single(k, None), k.ops.sigmoid),
    "nested": lambda k: ending(k, k.Sequential([k.Input((6,)), single(k)])),
    "a convolution": lambda k: ending(
        k, k.layers.Reshape((1, 1, 6)), k.layers.Conv2D(1, 1), k.layers.Reshape((1,)), k.ops.sigmoid
    ),
}


@pytest.mark.parametrize("name", SINGLES)
def test_one_sigmoid_is_a_softmax_of_two_classes(keras: Any, tmp_path: Path, name: str) -> None:
    model = saved(keras, SINGLES[name](keras), tmp_path)
    probability = answers(model)
    head = output_activation.find(model)
    assert (head.kind, head.output) == ("sigmoid", Output("logits"))
    assert str(head) == "sigmoid, one number: two classes, the second where it is large"
    both = ACTIVATIONS["softmax"](answers(head.model))
    np.testing.assert_allclose(both[:, 1:], probability, atol=1e-6)
    assert both.shape == (7, 2) and probability.std() > 0.002


def test_a_mean_of_single_sigmoids_is_two_probabilities(keras: Any, tmp_path: Path) -> None:
    model = saved(keras, merged(keras, keras.layers.Average(), "sigmoid", (1, 1)), tmp_path)
    head = output_activation.find(model)
    assert (head.kind, head.output, head.single) == ("sigmoid", Output("softmax"), True)
    p = answers(model)
    np.testing.assert_allclose(answers(head.model), np.hstack([1 - p, p]), atol=1e-6)
    with pytest.raises(UsageError, match="contradicts --head logits"):
        output_activation.find(model, "logits")


def test_one_number_without_a_sigmoid_is_the_users_to_say(keras: Any) -> None:
    model = ending(keras, single(keras, None))
    with pytest.raises(UsageError, match="gives one number: give --head logits"):
        output_activation.find(model)
    both = answers(output_activation.find(model, "logits").model)
    np.testing.assert_allclose(both[:, 1:] - both[:, :1], answers(model), rtol=1e-5)
    with pytest.raises(UsageError, match="gives one number"):
        output_activation.find(ending(keras, single(keras, "softmax")))


def test_an_activation_of_ones_own_before_one_logit_stays(keras: Any, tmp_path: Path) -> None:
    model = saved(keras, ending(keras, single(keras, "tanh")), tmp_path)
    both = answers(output_activation.find(model, "logits").model)
    np.testing.assert_allclose(both[:, 1:] - both[:, :1], answers(model), rtol=1e-5)


def test_one_number_is_no_row_of_features(keras: Any) -> None:
    with pytest.raises(UsageError, match=r"features are \(None, 1\), not \(n, 2 or more\)"):
        output_activation.find(ending(keras, single(keras, None)), "features")


def test_a_softmax_of_each_row_is_not_one_of_all(keras: Any, tmp_path: Path) -> None:
    rows = (keras.layers.Reshape((2, 3)), keras.layers.Softmax(), keras.layers.Flatten())
    model = saved(keras, ending(keras, *rows), tmp_path)
    head = output_activation.find(model)
    assert head.output.kind == "softmax"
    with pytest.raises(UsageError, match="add up to 2"):
        output_activation.check_answers(answers(head.model), head.output, certain=head.certain)


def relu_map(keras: Any, *layers: Any) -> Any:
    image = picture(keras)
    value = keras.layers.ReLU()(keras.layers.Conv2D(CLASSES, 3)(image))
    for layer in layers:
        value = layer(value)
    return keras.Model(image, value)


BODIES: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "average pooling": (lambda k: relu_map(k, k.layers.GlobalAveragePooling2D()), (CLASSES,)),
    "maximum pooling": (lambda k: relu_map(k, k.layers.GlobalMaxPooling2D()), (CLASSES,)),
    "pooling in a nested model": (
        lambda k: k.Sequential([picture(k), relu_map(k), k.layers.GlobalAveragePooling2D()]),
        (CLASSES,),
    ),
    "flattened": (lambda k: relu_map(k, k.layers.Flatten()), (6 * 7 * CLASSES,)),
    "a rectified Dense": (lambda k: ending(k, dense(k, "relu")), (CLASSES,)),
    "a batch norm": (lambda k: ending(k, dense(k), k.layers.BatchNormalization()), (CLASSES,)),
}


def test_a_map_is_asked_for(keras: Any) -> None:
    """A detector's trunk ends in one as well as a body without its top."""
    with pytest.raises(UsageError, match=r"^gives a map, \(None, 6, 7, 5\), .*--head features"):
        output_activation.find(relu_map(keras))
    head = output_activation.find(relu_map(keras), "features")
    assert (head.kind, str(head)) == ("features", "features, 6x7x5 numbers")
    pooled = keras.layers.GlobalAveragePooling2D()
    assert output_activation.find(relu_map(keras, pooled)).kind == "features"


@pytest.mark.parametrize("name", BODIES)
def test_a_body_without_its_top_gives_features(keras: Any, name: str) -> None:
    make, shape = BODIES[name]
    head = output_activation.find(make(keras))
    assert (head.kind, head.output.kind) == ("features", "features")
    assert tuple(head.model.outputs[0].shape[1:]) == shape
    assert str(head) == f"features, {'x'.join(map(str, shape))} numbers"


def convolutional_end(keras: Any) -> Any:
    image = picture(keras)
    scores = keras.layers.Conv2D(CLASSES, 3)(image)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(scores))


def test_pooled_scores_are_logits(keras: Any) -> None:
    assert output_activation.find(convolutional_end(keras)).kind == "logits"


def own_softmax(keras: Any) -> Any:
    """End in a softmax that no layer is called by."""

    def end(tensor: Any) -> Any:
        powers = keras.ops.exp(dense(keras)(tensor))
        return powers / keras.ops.sum(powers, axis=-1, keepdims=True)

    return functional(keras, end)


def test_probabilities_that_no_layer_tells_of_are_told_by_the_numbers(keras: Any) -> None:
    head = output_activation.find(own_softmax(keras))
    assert (head.kind, head.output.kind, str(head)) == ("softmax", "softmax", "softmax, 5 classes")


@pytest.mark.parametrize("declared", get_args(Kind))
def test_the_users_word_where_the_layers_do_not_tell(keras: Any, declared: Kind) -> None:
    model = ending(keras, dense(keras, "tanh"))
    with pytest.raises(UsageError, match="its last activation is tanh; allowed are softmax"):
        output_activation.find(model)
    assert output_activation.find(model, declared).output.kind == declared


@pytest.mark.parametrize("found", ["softmax", "sigmoid"])
@pytest.mark.parametrize("declared", get_args(Kind))
def test_the_users_word_against_the_layers(keras: Any, found: str, declared: Kind) -> None:
    model = ending(keras, dense(keras, found))
    if declared == found:
        assert output_activation.find(model, declared).kind == found
        return
    with pytest.raises(UsageError, match=f"^ends in {found}, which contradicts --head {declared}"):
        output_activation.find(model, declared)


def two_outputs(keras: Any) -> Any:
    image = picture(keras)
    features = body(keras, image)
    return keras.Model(image, [dense(keras)(features), dense(keras)(features)])


def two_inputs(keras: Any) -> Any:
    image, other = picture(keras), keras.Input((6,))
    return keras.Model([image, other], dense(keras)(body(keras, image) + other))


def of_shape(keras: Any, *shape: int | None) -> Any:
    image = keras.Input(shape)
    return keras.Model(image, dense(keras)(keras.layers.GlobalAveragePooling2D()(image)))


def segmentation(keras: Any, activation: str) -> Any:
    image = picture(keras)
    return keras.Model(image, keras.layers.Conv2D(CLASSES, 1, activation=activation)(image))


def unbuilt(keras: Any) -> Any:
    return keras.Sequential([keras.layers.GlobalAveragePooling2D(), dense(keras)])


NO_PICTURES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "two outputs": (two_outputs, "one keras.Input and one output, not 1 input and 2 outputs"),
    "two inputs": (two_inputs, "one keras.Input and one output, not 2 inputs and 1 output"),
    "a row of numbers": (lambda k: k.Sequential([k.Input((6,)), dense(k)]), r"not \(n, h, w, 3\)"),
    "two channels": (lambda k: of_shape(k, 8, 8, 2), r"input is \(None, 8, 8, 2\)"),
    "four channels": (lambda k: of_shape(k, 8, 8, 4), r"takes four channels, .* put a Conv2D"),
    "channels first": (
        lambda k: of_shape(k, 3, 8, 9),
        r"takes its channels first, \(None, 3, 8, 9\); .*Permute\(\(3, 1, 2\)\), model",
    ),
    "a Sequential model without input": (unbuilt, "one keras.Input and one output"),
}


@pytest.mark.parametrize("name", NO_PICTURES)
def test_what_takes_no_picture_is_refused(keras: Any, name: str) -> None:
    make, reason = NO_PICTURES[name]
    with pytest.raises(UsageError, match=reason):
        output_activation.check_input(make(keras))


def test_channels_first_behind_a_permute_are_taken(keras: Any) -> None:
    """The remedy of the refusal."""
    layers = [keras.Input((8, 9, 3)), keras.layers.Permute((3, 1, 2)), of_shape(keras, 3, 8, 9)]
    output_activation.check_input(keras.Sequential(layers))


NO_CLASSIFIERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a map of softmaxes": (lambda k: segmentation(k, "softmax"), r"output is \(None, 8, 9, 5\)"),
    "a map of scores": (lambda k: segmentation(k, "linear"), r"output is \(None, 8, 9, 5\)"),
    "one number as output": (
        lambda k: ending(k, k.layers.Dense(1)),
        "gives one number: give --head logits",
    ),
}


@pytest.mark.parametrize("name", NO_CLASSIFIERS)
def test_what_is_no_classifier_is_refused(keras: Any, name: str) -> None:
    make, reason = NO_CLASSIFIERS[name]
    with pytest.raises(UsageError, match=reason):
        output_activation.find(make(keras))


PROBABILITIES = np.array([[0.5, 0.25, 0.25], [0.0, 0.9999, 0.0001]], np.float32)
# Answers -> the kinds that they can be.
ANSWERS: dict[str, tuple[Floats, set[Kind]]] = {
    "probabilities that add up to 1": (PROBABILITIES, {"softmax", "features"}),
    "probabilities that don't": (PROBABILITIES * 0.9, {"sigmoid", "logits", "features"}),
    "numbers beyond 1": (PROBABILITIES * 2, {"logits", "features"}),
    "numbers below 0": (PROBABILITIES - 0.1, {"logits", "features"}),
}


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("name", ANSWERS)
def test_answers_that_contradict_their_kind_are_refused(name: str, kind: Kind) -> None:
    answers, allowed = ANSWERS[name]
    if kind in allowed:
        output_activation.check_answers(answers, Output(kind))
        return
    with pytest.raises(UsageError, match=r"^its outputs are .*give --head"):
        output_activation.check_answers(answers, Output(kind))


WITHIN = np.array([[0.9, 0.8, 0.1], [0.2, 0.7, 0.1]], np.float32)


def test_untold_logits_that_look_like_sigmoids_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^its outputs on 2 images .*give --head sigmoid, or"):
        output_activation.check_answers(WITHIN, Output(), certain=False)
    # Told, beyond 1, or the same for every picture, which is another fault.
    output_activation.check_answers(WITHIN, Output())
    output_activation.check_answers(WITHIN * 2, Output(), certain=False)
    output_activation.check_answers(WITHIN[:1].repeat(2, axis=0), Output(), certain=False)
    output_activation.check_answers(WITHIN, Output("features"), certain=False)


def test_who_tells_of_logits(keras: Any) -> None:
    class Own(keras.layers.Dense):  # type: ignore[misc]
        def call(self, tensor: Any) -> Any:
            return keras.ops.sigmoid(super().call(tensor))

    assert output_activation.find(ending(keras, dense(keras))).certain
    assert output_activation.find(convolutional_end(keras)).certain
    assert not output_activation.find(ending(keras, Own(CLASSES))).certain
    assert output_activation.find(ending(keras, Own(CLASSES)), "logits").certain
