"""The registry of the devices' compilers, and their call on an artefact.

A compiler is a module with the verbs `missing`, `version` and `compile_model`.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from kedge_convert.device import edgetpu, vela
from kedge_convert.device.compilation import Compilation, reseal
from kedge_convert.toolkit import ConversionError
from kedge_models.devices import Device
from kedge_runtime.files import temporary_folder

# By the word in a device's profile.
COMPILERS: dict[str, ModuleType] = {"edgetpu": edgetpu, "vela": vela}


@dataclass(frozen=True)
class Attempt:
    """The result of a compiler: the compilation and the sealed file's bytes, or its `refusal`.

    All are empty where there is no compiler.
    """

    compilation: Compilation | None = None
    content: bytes = b""
    refusal: str = ""


def attempt(path: Path, device: Device) -> Attempt:
    """Compile a .tflite file, sealed or not, if the device's compiler is installed.

    `COMPILERS[device.compiler].missing()` gives the reason where it isn't.
    """
    compiler = COMPILERS.get(device.compiler)
    if compiler is None or compiler.missing():
        return Attempt()
    with temporary_folder() as folder:
        # A plain name: compilers differ in what they make of `demo.int8.tflite`.
        model = folder / "model.tflite"
        shutil.copyfile(path, model)
        try:
            compilation, file = compiler.compile_model(model, device, folder)
        except ConversionError as error:
            return Attempt(refusal=str(error))
        return Attempt(compilation, reseal(path, file, compilation.compiler))


def compiled_name(path: Path, device: Device) -> Path:
    """Return an artefact's compiled path: `NAME_edgetpu.tflite` or `NAME_vela.tflite`."""
    return path.with_name(f"{path.stem}_{device.compiler}.tflite")
