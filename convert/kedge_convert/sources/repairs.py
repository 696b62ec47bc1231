"""What Keras 3 no longer reads of the configurations that Keras 1 and 2 wrote, mended one by one.

A configuration is plain JSON: {"class_name": ..., "config": {...}, "inbound_nodes": [...]} a layer.
Weights are loaded by the order of layers, so that names are free to change.
"""

from collections.abc import Callable, Iterator
from typing import Any

from kedge_convert.sources import operations
from kedge_convert.sources.registered import registered
from kedge_convert.toolkit import require

Layer = dict[str, Any]

# As they were called in Keras 1, in TensorFlow 1, and before Functional had a name of its own.
RENAMED = {
    "AtrousConvolution2D": "Conv2D",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "Convolution2D": "Conv2D",
    "Model": "Functional",
    "SeparableConvolution2D": "SeparableConv2D",
}
# Keys without a meaning for inference, of any layer: Keras 3 misses some of what they name.
TRAINING = ("_initializer", "_regularizer", "_constraint")
# Keys that Keras 2 wrote for layers which don't know them in Keras 3, and their only meaningless
# value: DepthwiseConv2D and SeparableConv2D inherited `groups`, random layers draw in training.
IDLE: dict[str, tuple[Any, ...]] = {
    "groups": (1,),
    "rng_type": ("stateful", "stateless", "legacy_stateful", None),
}


def repaired(config: Any) -> Any:
    """Return a configuration that Keras 3 can read; a new one, `config` stays as it is."""
    return _renamed(_layer(config), _new_names(config))


def _layer(layer: Layer) -> Layer:
    """Return one layer mended, and all that are nested in it."""
    name = RENAMED.get(layer["class_name"], layer["class_name"])
    config = layer["config"]
    if isinstance(config, list):  # a Sequential of Keras before 2.2.3
        config = {"name": "sequential", "layers": config}
    if name == "Sequential":
        config = {**config, "layers": _with_input(config["layers"])}
    mended = {**layer, "class_name": name, "config": _config(config)}
    if name in OPERATIONS:
        mended = OPERATIONS[name](mended)
    return mended


def _with_input(layers: list[Layer]) -> list[Layer]:
    """Begin with an InputLayer, where it was the first layer that said what it takes."""
    shape = layers[0]["config"].get("batch_input_shape")
    if layers[0]["class_name"] == "InputLayer" or shape is None:
        return layers
    rest = {key: value for key, value in layers[0]["config"].items() if key != "batch_input_shape"}
    first = {"class_name": "InputLayer", "config": {"batch_input_shape": shape, "name": "picture"}}
    return [first, {**layers[0], "config": rest}, *layers[1:]]


def _config(config: dict[str, Any]) -> dict[str, Any]:
    config = {
        key: value
        for key, value in config.items()
        if not key.endswith(TRAINING) and value not in IDLE.get(key, ())
    }
    for key, mend in VALUES.items():
        if key in config:
            config[key] = mend(config[key])
    return config


def _axis(axis: Any) -> Any:
    """BatchNormalization took several axes, and wrote one as a list."""
    return axis[0] if isinstance(axis, list) and len(axis) == 1 else axis


def _activation(activation: Any) -> Any:
    """Keras 3 gave the name to another function: https://github.com/keras-team/keras/pull/18250."""
    return registered(hard_sigmoid) if activation == "hard_sigmoid" else activation


def _dtype(dtype: Any) -> Any:
    """A mixed policy computes in float16 what the weights hold in float32."""
    return dtype if isinstance(dtype, str) and not dtype.startswith("mixed") else "float32"


def _wrapped(layer: Any) -> Any:
    """The layer inside TimeDistributed and its like."""
    return _layer(layer) if isinstance(layer, dict) and "class_name" in layer else layer


VALUES: dict[str, Callable[[Any], Any]] = {
    "axis": _axis,
    "activation": _activation,
    "dtype": _dtype,
    "layer": _wrapped,
    "layers": lambda layers: _from_zero([_layer(layer) for layer in layers]),
}


def _from_zero(layers: list[Layer]) -> list[Layer]:
    """Count the calls of a nested Sequential from 0; Keras 2 counted its own making as the first.

    Keras 3 knows that of nested functional models only.
    """
    nested = {layer["config"]["name"] for layer in layers if layer["class_name"] == "Sequential"}

    def mend(value: Any) -> Any:
        match value:
            case [str(name), int(call), *rest] if name in nested:
                return [name, max(call - 1, 0), *rest]
            case [*items]:
                return [mend(item) for item in items]
        return value

    return [{**layer, "inbound_nodes": mend(layer.get("inbound_nodes", []))} for layer in layers]


def hard_sigmoid(value: Any) -> Any:
    """Return clip(0.2 x + 0.5, 0, 1), Keras 1's and 2's; Keras 3 has clip(x / 6 + 0.5, 0, 1)."""
    return require("keras").ops.clip(0.2 * value + 0.5, 0.0, 1.0)


def _new_names(config: Any) -> dict[str, str]:
    """Return a new name for each layer with `/` in its own, which Keras 3 doesn't allow."""
    names = list(_names(config))
    taken, new = set(names), {}
    for name in names:
        if "/" in name and name not in new:
            new[name] = _free(name.replace("/", "_"), taken)
            taken.add(new[name])
    return new


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _names(config: Any) -> Iterator[str]:
    """Yield every layer's name, nested ones too."""
    if isinstance(config, dict):
        if isinstance(name := config.get("name"), str):
            yield name
        config = list(config.values())
    if isinstance(config, list):
        for item in config:
            yield from _names(item)


def _renamed(config: Any, names: dict[str, str]) -> Any:
    """Return a configuration with new names, wherever they are referred to."""
    if isinstance(config, dict):
        return {key: _renamed(value, names) for key, value in config.items()}
    if isinstance(config, list):
        return [_renamed(item, names) for item in config]
    return names.get(config, config) if isinstance(config, str) else config


OPERATIONS: dict[str, Callable[[Layer], Layer]] = {
    "SlicingOpLambda": operations.slicing,
    "TFOpLambda": operations.function,
}
