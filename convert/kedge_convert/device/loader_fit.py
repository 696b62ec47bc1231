"""Check whether a program that loads files by itself answers with a file as kedge does."""

from collections.abc import Callable

from kedge_convert.export import tflite
from kedge_models.devices import Loader
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.checks.hardware import Finding

BYTES = (
    "put the normalisation into the model (keras.layers.Rescaling) and convert with "
    "--normalisation raw"
)


def _output(contract: Contract, loader: Loader) -> Finding:
    kind = contract.output.kind
    if kind not in loader.kinds:
        detail = f"the file ends in {kind}, it reads {', '.join(loader.kinds)}"
        return Finding("problem", detail, "convert with the same --device")
    return Finding("ok", f"{kind}, in the file")


def _labels(contract: Contract, loader: Loader) -> Finding | None:
    if not loader.labels:
        return None
    if not contract.labels:
        return Finding("problem", f"no labels for {loader.labels}", "convert with --labels")
    return Finding("ok", f"{len(contract.labels)}, in {loader.labels}")


def _size(contract: Contract, loader: Loader) -> Finding | None:
    if not loader.size:
        return None
    geometry = contract.input.geometry
    detail = f"{geometry.width} x {geometry.height} pixels"
    if (geometry.width, geometry.height) != (loader.size, loader.size):
        wanted = f"it feeds {loader.size} x {loader.size}"
        fix = f"begin the model with keras.layers.Resizing, from {loader.size}"
        return Finding("problem", f"the input takes {detail}, {wanted}", fix)
    return Finding("ok", detail)


def _bytes(contract: Contract, loader: Loader) -> Finding | None:
    if not loader.raw_bytes:
        return None
    if contract.input.normalisation.colour != "rgb":
        colour = contract.input.normalisation.colour
        return Finding("problem", f"it feeds RGB images, this model takes {colour}", BYTES)
    if not tflite.takes_bytes(contract):
        return Finding("problem", "it feeds bytes as they are, this model takes others", BYTES)
    return Finding("ok", "as they are, within a step of the input")


def _pixels(contract: Contract, loader: Loader) -> Finding:
    """Note where it scales images in another way, which no file can change."""
    own = contract.input.geometry
    resize = loader.resizes[0]
    if own.resize not in loader.resizes or own.fit != loader.fit:
        ours, theirs = f"{own.resize}, {own.fit}", f"{resize}, {loader.fit}"
        detail = f"it scales images by {theirs}, the contract by {ours}: its answers may differ"
        fix = f"train so, and convert with --resize {resize} --fit {loader.fit}"
        return Finding("note", detail, fix)
    return Finding("ok", f"{own.resize}, {own.fit}")


CHECKS: dict[str, Callable[[Contract, Loader], Finding | None]] = {
    "output": _output,
    "labels": _labels,
    "size": _size,
    "bytes": _bytes,
    "pixels": _pixels,
}
