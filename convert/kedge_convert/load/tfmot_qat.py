"""Stand-ins for the layers of tensorflow_model_optimization's quantisation-aware models.

That package can't be installed beside today's numpy. The stand-ins have its names, its order of
weights and its arithmetic out of training, so that tf_keras can load and trace such a model.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from kedge_convert.toolkit import require

# Activations whose input, and whose output, is fake-quantised.
_BEFORE = frozenset({"gelu", "sigmoid", "softmax", "tanh"})
_AFTER = frozenset({"gelu", "linear", "relu", "swish"})
_ACTIVATION_LAYERS = frozenset({"gelu", "relu", "relu6", "swish"})

Range = dict[str, Any]


@dataclass(frozen=True)
class Quantiser:
    """Fake quantisation by a learned range: one, or one a channel (`per_axis`)."""

    num_bits: int = 8
    per_axis: bool = False
    symmetric: bool = False
    narrow_range: bool = False

    def build(self, shape: Any, name: str, layer: Any) -> Range:
        """Add the range to a layer's weights."""
        sides = (shape[-1],) if self.per_axis else ()
        return {
            end: layer.add_weight(name=f"{name}_{end}", shape=sides, trainable=False)
            for end in ("min", "max")
        }

    def __call__(self, value: Any, span: Range) -> Any:
        """Return the value rounded to the steps of its range."""
        quantization = require("tensorflow").quantization
        one, several = (
            quantization.fake_quant_with_min_max_vars,
            quantization.fake_quant_with_min_max_vars_per_channel,
        )
        fake = several if self.per_axis else one
        return fake(value, span["min"], span["max"], self.num_bits, self.narrow_range)


@dataclass(frozen=True)
class Transposed(Quantiser):
    """The quantiser of a transposed convolution's kernel: its channels precede its inputs."""

    def __call__(self, value: Any, span: Range) -> Any:
        """Return the kernel rounded to the steps of its range."""
        tf = require("tensorflow")
        rounded = super().__call__(tf.transpose(value, (0, 1, 3, 2)), span)
        return tf.transpose(rounded, (0, 1, 3, 2))


@dataclass(frozen=True)
class Fixed(Quantiser):
    """A quantiser with a fixed range, which is no weight."""

    init_min: float = 0.0
    init_max: float = 0.0

    def build(self, shape: Any, name: str, layer: Any) -> Range:
        """Return the range."""
        return {"min": self.init_min, "max": self.init_max}


KERNEL = Quantiser(symmetric=True, narrow_range=True)
CONVOLUTION = Quantiser(per_axis=True, symmetric=True, narrow_range=True)
TRANSPOSED = Transposed(symmetric=True, narrow_range=True)
ACTIVATION = Quantiser()


class Config(Protocol):
    """A layer's quantisation: of kernels, activations and output."""

    def kernels(self, layer: Any) -> list[tuple[str, Quantiser]]:
        """Return the names of the layer's quantised weights."""

    def activations(self, layer: Any) -> list[tuple[str, Quantiser]]:
        """Return the names of the layer's quantised activations."""

    def output(self, layer: Any) -> Quantiser | None:
        """Return the quantiser of the layer's output."""


@dataclass(frozen=True)
class Default8Bit:
    """The scheme's configuration of a layer with weights."""

    weight_attrs: tuple[str, ...] = ()
    activation_attrs: tuple[str, ...] = ()
    quantize_output: bool = False
    kernel: Quantiser = KERNEL

    def kernels(self, layer: Any) -> list[tuple[str, Quantiser]]:
        """Return the names of the layer's quantised weights."""
        return [(name, self.kernel) for name in self.weight_attrs]

    def activations(self, layer: Any) -> list[tuple[str, Quantiser]]:
        """Return the names of the layer's quantised activations."""
        return [(name, ACTIVATION) for name in self.activation_attrs]

    def output(self, layer: Any) -> Quantiser | None:
        """Return the quantiser of the layer's output."""
        return ACTIVATION if self.quantize_output else None


class OfActivation(Default8Bit):
    """The configuration of an Activation layer: softmax and the like stay float."""

    def output(self, layer: Any) -> Quantiser | None:
        """Return the quantiser of the layer's output."""
        named = getattr(layer.activation, "__name__", "") in _ACTIVATION_LAYERS
        return super().output(layer) if named else None


@dataclass(frozen=True)
class OutputOnly:
    """The configuration of a layer whose weights stay float."""

    inner: Config

    def kernels(self, layer: Any) -> list[tuple[str, Quantiser]]:
        """Return none."""
        return []

    def activations(self, layer: Any) -> list[tuple[str, Quantiser]]:
        """Return the names of the layer's quantised activations."""
        return self.inner.activations(layer)

    def output(self, layer: Any) -> Quantiser | None:
        """Return the quantiser of the layer's output."""
        return self.inner.output(layer)


@dataclass(frozen=True)
class OfFixed:
    """The configuration of a layer whose activations have a fixed range."""

    inner: Config
    fixed: Fixed

    def kernels(self, layer: Any) -> list[tuple[str, Quantiser]]:
        """Return the names of the layer's quantised weights."""
        return self.inner.kernels(layer)

    def activations(self, layer: Any) -> list[tuple[str, Quantiser]]:
        """Return the names of the layer's quantised activations."""
        return [(name, self.fixed) for name, _ in self.inner.activations(layer)]

    def output(self, layer: Any) -> Quantiser | None:
        """Return the quantiser of the layer's output."""
        return self.fixed if self.inner.output(layer) else None


def _config(saved: dict[str, Any]) -> Config:
    """Read a saved configuration. Raises ValueError for one of the author's own."""
    name, values = saved["class_name"].rpartition(">")[2], dict(saved["config"])
    match name:
        case "NoOpQuantizeConfig":
            return Default8Bit()
        case "Default8BitOutputQuantizeConfig":
            return Default8Bit(quantize_output=values.get("quantize_output", True))
        case "Default8BitActivationQuantizeConfig":
            return OfActivation(quantize_output=values.get("quantize_output", True))
        case "OutputOnlyConfig":
            return OutputOnly(_config(values["quantize_config"]))
        case "FixedQuantizeConfig":
            inner = _config(values.pop("config"))
            return OfFixed(inner, Fixed(**values))
    if name not in _KERNELS:
        raise ValueError(f"Unknown quantize config: '{name}'")
    return Default8Bit(**values, kernel=_KERNELS[name])


_KERNELS = {
    "Default8BitQuantizeConfig": KERNEL,
    "Default8BitConvQuantizeConfig": CONVOLUTION,
    "Default8BitConvTransposeQuantizeConfig": TRANSPOSED,
}


def _quantiser(saved: dict[str, Any] | None) -> Quantiser | None:
    """Read a saved quantiser; None for none. Raises ValueError for an unknown one."""
    if saved is None:
        return None
    name, values = saved["class_name"].rpartition(">")[2], saved["config"]
    if name == "NoQuantizer":
        return None
    special: dict[str, type[Quantiser]] = {
        "FixedQuantizer": Fixed,
        "Default8BitConvTransposeWeightsQuantizer": Transposed,
    }
    if name in special or name.endswith("Quantizer"):
        return special.get(name, Quantiser)(**values)
    raise ValueError(f"Unknown quantizer: '{name}'")


class Aware:
    """An activation with fake quantisation of its input and output."""

    def __init__(self, activation: Any, quantiser: Quantiser, layer: Any) -> None:
        """Add its ranges to the weights of a layer."""
        name = getattr(activation, "__name__", type(activation).__name__)
        self.activation, self.quantiser = activation, quantiser
        self.before = quantiser.build(None, "pre_activation", layer) if name in _BEFORE else None
        self.after = quantiser.build(None, "post_activation", layer) if name in _AFTER else None

    def __call__(self, value: Any) -> Any:
        """Return the activation of a value."""
        if self.before is not None:
            value = self.quantiser(value, self.before)
        value = self.activation(value)
        return value if self.after is None else self.quantiser(value, self.after)


class NoOpActivation:
    """The identity, which isn't quantised."""

    def __call__(self, value: Any) -> Any:
        """Return the value."""
        return value

    def get_config(self) -> dict[str, Any]:
        """Return nothing, as there is nothing to configure."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "NoOpActivation":
        """Return the activation."""
        return cls()


class QuantizeAwareActivation:
    """The saved name of a wrapped layer's activation, which is wrapped anew."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Return the activation itself."""
        return require("tf_keras").activations.deserialize(config["activation"])


def stand_ins() -> dict[str, Any]:
    """Return the custom objects by which tf_keras loads a quantisation-aware model."""
    layers = (_quantize_layer(), *_wrappers(), NoOpActivation, QuantizeAwareActivation)
    return {each.__name__: each for each in layers}


def _add_step(layer: Any) -> None:
    dtype = require("tensorflow").int32
    layer.add_weight(name="optimizer_step", shape=(), dtype=dtype, trainable=False)


@cache
def _quantize_layer() -> type:
    keras = require("tf_keras")

    class QuantizeLayer(keras.layers.Layer):  # type: ignore[misc,name-defined]
        def __init__(self, quantizer: Any, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.quantiser = _quantiser(quantizer)

        def build(self, input_shape: Any) -> None:
            if self.quantiser:
                self.span = self.quantiser.build(input_shape, self.name, self)
            _add_step(self)
            super().build(input_shape)

        def call(self, value: Any) -> Any:
            return self.quantiser(value, self.span) if self.quantiser else value

    return QuantizeLayer


@cache
def _wrappers() -> tuple[type, type]:
    """Return QuantizeWrapper and QuantizeWrapperV2."""
    keras = require("tf_keras")

    class QuantizeWrapper(keras.layers.Wrapper):  # type: ignore[misc,name-defined]
        def __init__(self, layer: Any, quantize_config: Any, **kwargs: Any) -> None:
            kwargs.pop("name_prefix", None)
            super().__init__(layer, **kwargs)
            self.settings = _config(quantize_config)

        @classmethod
        def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
            legacy = "module" not in config["layer"]
            layer = keras.layers.deserialize(config["layer"], use_legacy_format=legacy)
            return cls(**{**config, "layer": layer})

        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            _add_step(self)
            self.kernels = []
            for name, quantiser in self.settings.kernels(self.layer):
                weight = getattr(self.layer, name)
                weight_name = weight.name.partition(":")[0].rpartition("/")[2]
                span = quantiser.build(weight.shape, weight_name, self)
                self.kernels.append((name, weight, quantiser, span))
                # The layer's own list loses it as soon as its rounded form takes its place.
                self._trainable_weights.append(weight)
            self.aware = {
                name: Aware(getattr(self.layer, name), quantiser, self)
                for name, quantiser in self.settings.activations(self.layer)
            }
            self.output_quantiser = self.settings.output(self.layer)
            if self.output_quantiser:
                self.span = self.output_quantiser.build(None, "output", self)

        def compute_output_shape(self, input_shape: Any) -> Any:
            return self.layer.compute_output_shape(input_shape)

        def call(self, value: Any, training: Any = None) -> Any:
            for name, weight, quantiser, span in self.kernels:
                setattr(self.layer, name, quantiser(weight, span))
            for name, activation in self.aware.items():
                setattr(self.layer, name, activation)
            training = {"training": False} if self.layer._expects_training_arg else {}
            value = self.layer.call(value, **training)
            return self.output_quantiser(value, self.span) if self.output_quantiser else value

        @property
        def trainable_weights(self) -> Any:
            return self.layer.trainable_weights + self._trainable_weights

        @property
        def non_trainable_weights(self) -> Any:
            return self.layer.non_trainable_weights + self._non_trainable_weights

    class QuantizeWrapperV2(QuantizeWrapper):
        def build(self, input_shape: Any) -> None:
            if not self.layer.built:
                self.layer.build(input_shape)
                self.layer.built = True
            self._trainable_weights.extend(self.layer.trainable_weights)
            super().build(input_shape)

        @property
        def trainable_weights(self) -> Any:
            return self._dedup_weights(self._trainable_weights + self.layer.trainable_weights)

    return QuantizeWrapper, QuantizeWrapperV2
