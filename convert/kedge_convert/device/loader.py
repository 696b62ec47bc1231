"""What a program that loads files by itself needs: the activation in the file, and its folder.

The profile says it ([loader] in `kedge_models/devices/*.toml`).
"""

from dataclasses import replace
from pathlib import Path

from kedge_convert.export import activation
from kedge_convert.export.exported import Exported, Scheme
from kedge_convert.source import Source
from kedge_convert.toolkit import require
from kedge_models.devices import Device
from kedge_runtime.artefact.contract import Contract, Input, Tensor
from kedge_runtime.artefact.kinds import Kind
from kedge_runtime.errors import UsageError
from kedge_runtime.files import write_whole
from kedge_runtime.image.preprocessing import table

BACKGROUND = "background"  # the output before the first label's, where there is one


def as_loaded(source: Source, device: Device | None) -> Source:
    """Return the source with the output that the files of a device end in.

    Its numbers are the float model's reference for them. Raises UsageError where the device's
    program can read no such output.
    """
    if device is None or device.loader is None:
        return source
    kinds = device.loader.kinds
    kind: Kind = source.output.kind
    if kind == "logits" and kind not in kinds:
        kind = source.activation
    if kind not in kinds:
        raise UsageError(
            f"--device {device.name}: {device.title} reads {' or '.join(kinds)}, {source.name} "
            f"gives {kind}: run it with kedge watch instead"
        )
    if kind == source.output.kind:
        return source
    line = f"head: {source.head}; the file ends in a {kind}, since {device.title} computes none"
    output = replace(source.output, kind=kind)
    return replace(source, model=_behind(source), output=output, notes=(line, *source.notes[1:]))


def _behind(source: Source) -> object:
    keras = require("keras")
    probabilities = keras.layers.Activation(source.activation)(source.model.outputs[0])
    return keras.Model(source.model.inputs[0], probabilities, name=source.model.name)


def with_span(scheme: Scheme, spec: Input, device: Device | None) -> Scheme:
    """Return the scheme, with the span of bytes where a device's program feeds them as they are.

    Calibration images without black or white would give the input other steps than a byte's.
    Channels that are normalised apart have no common span.
    """
    if device is None or device.loader is None or not device.loader.raw_bytes:
        return scheme
    numbers = table(spec.normalisation, Tensor()).reshape(256, -1)
    (low, *lows), (high, *highs) = numbers[0].tolist(), numbers[255].tolist()
    if {low, *lows} != {low} or {high, *highs} != {high}:
        return scheme
    return replace(scheme, input_span=(low, high))


def finished(exported: Exported, source: Source, loaded: Source) -> Exported:
    """Return the file of `source` with the output of `loaded`."""
    if source.output.kind == loaded.output.kind:
        return exported
    content = activation.append(exported.content, source.activation)
    return Exported(content, exported.notes)


def folder_of(final: Path, source: str, device: Device | None) -> Path | None:
    """Return the folder beside an artefact that a device's program loads, if it takes folders."""
    if device is None or device.loader is None or not device.loader.model:
        return None
    return final.parent / device.name / source


def write_folder(folder: Path, device: Device, content: bytes, contract: Contract) -> None:
    """Write the model and its labels under the names that the device's program opens."""
    assert device.loader is not None
    folder.mkdir(parents=True, exist_ok=True)
    if device.loader.labels:
        write_whole(folder / device.loader.labels, label_lines(contract).encode())
    write_whole(folder / device.loader.model, content)


def label_lines(contract: Contract) -> str:
    """Return a line for each output, in their order."""
    names = [BACKGROUND] * contract.output.label_offset + [each.name for each in contract.labels]
    return "".join(f"{name}\n" for name in names)
