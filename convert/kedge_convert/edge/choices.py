"""What `kedge convert --device NAME` chooses: a device's profile in the converter's words."""

from collections.abc import Sequence
from dataclasses import dataclass

from kedge_convert.targets import Target, parse_targets
from kedge_models.devices import Device
from kedge_runtime.contract import DType
from kedge_runtime.errors import UsageError


@dataclass(frozen=True)
class Choices:
    """What a conversion for one device does differently.

    `targets`: what to make. `input`, `output`: the types of an integer model's ends
    (`inference_input_type`). `per_channel_dense`: False turns on TensorFlow's
    `_experimental_disable_per_channel_quantization_for_dense_layers`. `reduce_range`: the option of
    that name of `onnxruntime.quantization.quantize_static`. `rewrites`: names for
    `rewrites.rewrite`.
    """

    targets: tuple[Target, ...]
    input: DType = "int8"
    output: DType = "int8"
    per_channel_dense: bool = True
    reduce_range: bool = False
    rewrites: tuple[str, ...] = ()


def choices_for(
    device: Device, targets: Sequence[Target] = (), rewrites: Sequence[str] = ()
) -> Choices:
    """Return what to do for a device; `targets` of the user's go before the device's own.

    Raises UsageError for a target that the device can't run.
    """
    chosen = tuple(targets) or parse_targets(",".join(device.targets))
    for target in chosen:
        if target.precision not in device.precisions.get(target.form, ()):
            able = ", ".join(f"{f}:{p}" for f, each in device.precisions.items() for p in each)
            raise UsageError(f"--to: {device.name} can't run {target}, allowed are {able}")
    return Choices(
        chosen,
        device.inputs[0],
        device.outputs[0],
        device.per_channel_dense,
        device.reduce_range,
        tuple(rewrites),
    )
