"""The device's compiler called on an artefact, and its file, sealed as the artefact is."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from kedge_convert.device import edgetpu, vela
from kedge_convert.device.compilation import Compilation, reseal
from kedge_convert.toolkit import ConversionError
from kedge_models.devices import Device
from kedge_runtime.files import temporary_folder

# By the word in a device's profile; twins, see compilation.py.
COMPILERS: dict[str, ModuleType] = {"edgetpu": edgetpu, "vela": vela}


@dataclass(frozen=True)
class Attempt:
    """What became of a compilation: what the compiler says of it and the sealed file's bytes, or
    the `refusal`. All are empty where there is no compiler.
    """

    compilation: Compilation | None = None
    content: bytes = b""
    refusal: str = ""


def attempt(path: Path, device: Device) -> Attempt:
    """Compile a .tflite file, sealed or not, if the device's compiler can be called here.

    `COMPILERS[device.compiler].missing()` says why it can't.
    """
    compiler = COMPILERS.get(device.compiler)
    if compiler is None or compiler.missing():
        return Attempt()
    with temporary_folder() as folder:
        # A plain name: what compilers make of `demo.int8.tflite` is their own affair.
        model = folder / "model.tflite"
        shutil.copyfile(path, model)
        try:
            made, file = compiler.compile_model(model, device, folder)
        except ConversionError as error:
            return Attempt(refusal=str(error))
        return Attempt(made, reseal(path, file, made.compiler))


def compiled_name(path: Path, device: Device) -> Path:
    """Return where an artefact's compiled file lies: `NAME_edgetpu.tflite`, `NAME_vela.tflite`."""
    return path.with_name(f"{path.stem}_{device.compiler}.tflite")
